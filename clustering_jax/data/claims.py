"""What a file says of itself is compared with what is there, before memory is taken for it."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from clustering_jax.errors import UserError

# Sparse formats whose indices can be checked.
SPARSE = ("csr", "csc", "coo")
# Most arrays of one file.
MEMBERS = 10_000
# Largest part of the memory for one dense array of a sparse one.
SHARE = 0.9


def npy_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Reads the header of a `.npy` and leaves `file` at the first element.

    Args:
      file: a file at its start.
      size: its bytes.

    Returns:
      ``(shape, dtype, whether the order is Fortran's)``.

    Raises:
      ValueError: it is no array, or holds fewer bytes than its header says.
    """
    version = np.lib.format.read_magic(file)
    if version > (2, 0):
        raise ValueError("a structured array")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read(file)
    except Exception as error:  # NumPy parses it as Python: TokenError, SyntaxError, MemoryError, ...
        raise ValueError(f"its header can't be read: {error}") from error
    if any(length < 0 for length in shape):
        raise ValueError(f"its header says shape {shape}")
    claimed, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed > held and not dtype.hasobject:
        raise ValueError(f"{held} bytes where its header says {claimed}, it ends early")
    return shape, dtype, fortran


def check_npy(path: Path) -> None:
    """Raises ValueError if a `.npy` file holds fewer bytes than its header says."""
    with path.open("rb") as file:
        if file.read(6) != np.lib.format.MAGIC_PREFIX:
            return  # NumPy's own message says what it is
        file.seek(0)
        npy_header(file, os.fstat(file.fileno()).st_size)


def checked_text(array: np.ndarray) -> np.ndarray:
    """Returns `array`, text of which is Unicode; Python crashes on other numbers in the place of characters.

    Raises:
      ValueError: it is not.
    """
    if array.dtype.kind == "U" and array.size:
        numbers = np.ascontiguousarray(array).reshape(-1).view(f"{array.dtype.str[0]}u4")
        if numbers.max() > 0x10FFFF:
            raise ValueError("it holds text that is no Unicode")
    return array


def check_npz(path: Path, key: str = "") -> list[str]:
    """Checks an archive of arrays, without reading them.

    Args:
      path: a `.npz` file.
      key: the array whose header is compared with its bytes; "" is none.

    Returns:
      The names of the arrays.

    Raises:
      ValueError: an array holds fewer bytes than its header says, or there are too many arrays.
      BadZipFile: an array has two names.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > MEMBERS:
            raise ValueError(f"{len(entries)} arrays")
        for each in entries:  # raises where the directory of the archive and the array disagree on its name
            archive.open(each).close()
        entry = next((entry for entry in entries if entry.filename in (key, f"{key}.npy")), None)
        if key and entry:
            # What the archive says of the size is a claim too: deflate packs a thousandfold at most.
            with archive.open(entry) as file:
                npy_header(file, min(entry.file_size, 1100 * entry.compress_size + 4096))
        return [entry.filename.removesuffix(".npy") for entry in entries]


def checked_sparse(matrix: Any, origin: str) -> Any:
    """Returns a sparse matrix whose indices are all within its shape; compiled code trusts them.

    Args:
      matrix: a sparse matrix or array of SciPy.
      origin: name of the matrix in messages.

    Raises:
      UserError: it has another format, an index is out of range, or as a dense array it does not fit into the memory.
    """
    if matrix.format not in SPARSE or matrix.ndim != 2:
        raise UserError(f"{origin} is a sparse array of the format {matrix.format}: save it as {' or '.join(SPARSE)}")
    size = math.prod(int(length) for length in matrix.shape) * matrix.dtype.itemsize
    if size > SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise UserError(
            f"{origin} has shape {matrix.shape}, dense it takes {size / 2**30:.0f} GiB: more than the memory"
        )
    try:
        if matrix.format == "coo":
            _check_coo(matrix)
        else:
            matrix.check_format(full_check=True)
    except (ValueError, TypeError, IndexError) as error:
        raise UserError(f"{origin} is a damaged sparse array ({error}): save it again") from error
    return matrix


def _check_coo(matrix: Any) -> None:
    for indices, length in zip((matrix.row, matrix.col), matrix.shape, strict=True):
        if len(indices) != len(matrix.data) or (len(indices) and not 0 <= indices.min() <= indices.max() < length):
            raise ValueError("indices outside of its shape")
