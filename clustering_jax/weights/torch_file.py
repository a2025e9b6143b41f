"""Reads PyTorch checkpoints without PyTorch and without executing the pickles inside, see `torch_pickle`.

It supports the zip archives of torch >= 1.6, and the older format, a sequence of pickles and raw storages.
"""

from __future__ import annotations

import functools
import io
import itertools
import os
import re
import struct
import zipfile
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from clustering_jax.errors import UserError
from clustering_jax.weights.torch_pickle import Name, Refused, Storage, Tensor, describe, interpret, typed

MAX_ITEMS = 10**6
MAX_DEPTH = 64

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# Exceptions that a damaged file can cause here and inside zipfile and pickletools.
_DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError),
    *(RuntimeError, TypeError, ValueError, struct.error, zipfile.BadZipFile),
)


def read_torch(path: str | os.PathLike) -> dict[Any, Any]:
    """Reads the dictionary that `torch.save` wrote to `path`. Nothing in the file is executed.

    Args:
      path: path of the file.

    Returns:
      A dictionary of nested dict, OrderedDict, list, tuple (also for torch.Size), scalars, np.dtype (for torch dtypes)
      and np.ndarray (for tensors and parameters). The arrays are float64/32/16, bfloat16, int64/32/16/8, uint8 or bool.
      They are read-only and have the strides of the file. Attributes of state dictionaries (``_metadata``) are dropped.

    Raises:
      UserError: the file can't be opened, is damaged or truncated, does not hold a dictionary, or refers to anything
        that is not plain tensor data, which the message names.
    """
    try:
        with open(path, "rb") as file:
            return _read(file)
    except Refused as error:
        raise UserError(f"{path} {error}: refused; nothing was executed") from error
    except _DAMAGE as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        reason = ascii(f"{type(error).__name__}: {reason}"[:120])[1:-1]
        if isinstance(error, FileNotFoundError | IsADirectoryError | PermissionError):
            raise UserError(f"{path} can't be opened ({reason})") from error
        raise UserError(f"{path} is damaged, truncated or not a PyTorch checkpoint ({reason})") from error


def _read(file: IO[bytes]) -> dict[Any, Any]:
    size = os.fstat(file.fileno()).st_size
    head = file.read(4)
    file.seek(0)
    if head == b"PK\x03\x04":
        tree, read = _read_zip(file, size)
    elif head[:1] == b"\x80":
        tree, read = _read_legacy(file, size)
    else:
        raise Refused("is not a PyTorch checkpoint: neither a zip archive nor a pickle")
    if not isinstance(tree, dict):
        raise Refused(f"holds {describe(tree)}, not a dictionary of tensors")
    return _resolve(tree, read)


def _read_zip(file: IO[bytes], size: int) -> tuple[Any, Callable[[Storage], bytes]]:
    archive = zipfile.ZipFile(file)
    _check_members(archive.infolist(), size)
    roots = [n[: -len("data.pkl")] for n in archive.namelist() if re.fullmatch(r"[^/]*/data\.pkl", n)]
    if len(roots) != 1:
        raise Refused("is a zip archive without the one data.pkl that torch.save writes")
    root = roots[0]
    order = archive.read(f"{root}byteorder") if f"{root}byteorder" in archive.namelist() else b"little"
    if order not in (b"little", b"big"):
        raise Refused(f"names an unknown byte order ({order[:20]!a})")
    tree, _ = interpret(io.BytesIO(archive.read(f"{root}data.pkl")))

    @functools.cache
    def read(storage: Storage) -> bytes:
        raw = archive.read(f"{root}data/{storage.key}")
        if len(raw) != storage.nbytes:
            raise Refused(f"holds {len(raw)} bytes for storage {storage.key!a} of {storage.numel} {storage.dtype}")
        return raw if order == b"little" else _swap(raw, storage.dtype.itemsize)

    return tree, read


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    """Refuses zip bombs and overlapping members: `torch.save` does not compress, so members fit in the file's size."""
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise Refused(f"has the compressed or encrypted member {member.filename!a}, unlike torch.save's")
    if sum(max(m.file_size, m.compress_size) for m in members) > size:
        raise Refused(f"claims members larger than the file itself ({size} bytes): damaged or a zip bomb")


def _swap(raw: bytes, itemsize: int) -> bytes:
    return np.frombuffer(raw, f"u{itemsize}").byteswap().tobytes()


def _read_legacy(file: IO[bytes], size: int) -> tuple[Any, Callable[[Storage], bytes]]:
    if (magic := interpret(file)[0]) != _LEGACY_MAGIC:
        raise Refused(f"is a pickle, but not one of torch.save (it starts with {describe(magic)})")
    _protocol, _system = interpret(file), interpret(file)
    tree, storages = interpret(file)
    raw = {}
    for key in interpret(file)[0]:
        storage = storages[typed(key, str)]
        (numel,) = struct.unpack("<q", file.read(8))
        if numel != storage.numel or storage.nbytes > size - file.tell():
            raise Refused(f"has a storage {key!a} of {numel} elements, not {storage.numel}, or is truncated")
        raw[storage] = file.read(storage.nbytes)
    return tree, raw.__getitem__


def _resolve(tree: Any, read: Callable[[Storage], bytes]) -> Any:
    """Copies the tree and replaces tensors by arrays.

    Shared containers are copied each time. They can form cycles or exponentially many items, so there are limits.
    """
    items = itertools.count()

    def walk(value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH or next(items) > MAX_ITEMS:
            raise Refused(f"nests deeper than {MAX_DEPTH} levels or holds more than {MAX_ITEMS} items: refused")
        if isinstance(value, dict):
            return type(value)((k, walk(v, depth + 1)) for k, v in value.items())
        if isinstance(value, list | tuple):
            return type(value)(walk(v, depth + 1) for v in value)
        if isinstance(value, Name | Storage):
            raise Refused(f"holds {describe(value)}, not a tensor, a number or a name")
        return _array(value, read) if isinstance(value, Tensor) else value

    return walk(tree, 0)


def _array(tensor: Tensor, read: Callable[[Storage], bytes]) -> np.ndarray:
    dtype = tensor.storage.dtype
    if 0 in tensor.size:
        return np.empty(tensor.size, dtype)
    strides = [step * dtype.itemsize for step in tensor.stride]
    return np.ndarray(tensor.size, dtype, read(tensor.storage), tensor.offset * dtype.itemsize, strides)
