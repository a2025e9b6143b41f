"""Reads images from NumPy files, whole or as a stream. Pickled data are never loaded."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.data.claims import check_npz, checked_text, npy_header
from clustering_jax.data.labels import read_labels
from clustering_jax.errors import UserError, nearest, reading

IMAGE_KEYS = ("image", "images", "x", "arr_0")
CHUNK = 1024
# Float pixels may leave [0, 1] by this much, because resizing overshoots. Rounding to uint8 removes less than this.
SLACK = 1e-3


class _Stored(NamedTuple):
    """The header of an array in a file.

    Attributes:
      path: the file.
      key: key of the array in a `.npz`; "" for a `.npy`.
      shape: shape of the array.
      dtype: type of its elements.
      fortran: whether the elements are in Fortran order.
    """

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool

    def __str__(self) -> str:
        return f"{self.path} ['{self.key}']" if self.key else str(self.path)


def arrays(path: str | Path, *, image_key: str = "", label_key: str = "") -> Dataset:
    """Reads the images of a `.npy` or `.npz` file as uint8 ``[n, h, w, c]``.

    The array in the file is ``[n, h, w]`` or ``[n, h, w, c]`` with c = 1 or 3. It is uint8, or float in [0, 1], which
    is scaled by 255 and rounded. A uint8 `.npy` is memory-mapped.

    Args:
      path: the file.
      image_key: key of the images in a `.npz`; "" takes image, images, x or arr_0, or the only array.
      label_key: key of the labels in a `.npz`, ``[n]``, see `read_labels`; "" reads no labels.

    Raises:
      UserError: the file is missing or damaged, or holds something else (objects, NaN, another rank or type).
    """
    path = _existing(path)
    stored = _inspect(path, image_key)
    labels = _labels(path, label_key, stored.shape[0]) if label_key else None
    if path.suffix == ".npy" and stored.dtype == np.uint8:
        with reading(path, "NumPy file"):
            images = np.load(path, mmap_mode="r", allow_pickle=False).reshape(_image_shape(stored))
    else:
        images = np.empty(_image_shape(stored), np.uint8)
        for first, rows in _pixels(stored, CHUNK):
            images[first : first + len(rows)] = rows
    refuse_constant(images, str(stored))
    return Dataset({"image": images}, row_ids(len(images)), labels, path.name, "all", dark_note(images, str(stored)))


def dark_note(images: np.ndarray, origin: str) -> tuple[str, ...]:
    """A note if all pixels, uint8 [n, h, w, c], are 0 or 1 of 255, which is black."""
    if any((images[i : i + CHUNK] > 1).any() for i in range(0, len(images), CHUNK)):
        return ()
    return (f"{origin}: all pixels are 0 or 1 of 255, nearly black: were they divided by 255 twice?",)


def refuse_constant(images: np.ndarray, origin: str) -> None:
    """Raises UserError if all pixels of all images, uint8 [n, h, w, c], have one value."""
    first = images[0].reshape(-1)[0]
    # Chunk by chunk, since the array may be memory-mapped: nearly always the first one ends it.
    if all((images[i : i + CHUNK] == first).all() for i in range(0, len(images), CHUNK)):
        raise UserError(f"{origin}: every pixel of every picture is {first}: are they what you think they are?")


def iter_array(path: str | Path, chunk: int, *, image_key: str = "") -> Iterator[tuple[list[str], np.ndarray]]:
    """Yields the images that `arrays` loads in chunks.

    The memory is constant, except that a `.npz` array in Fortran order is loaded whole.

    Args:
      path: the file.
      chunk: largest number of images at a time.
      image_key: as for `arrays`.

    Yields:
      ``(ids, uint8 [m, h, w, c])`` with m <= chunk.

    Raises:
      UserError: as `arrays`; a bad pixel is reported when its chunk is read.
    """
    for first, rows in _pixels(_inspect(_existing(path), image_key), chunk):
        yield [str(i) for i in range(first, first + len(rows))], rows


def as_images(array: np.ndarray, origin: str) -> np.ndarray:
    """Converts an array in memory as `arrays` converts an array of a file.

    Args:
      array: [n, h, w] or [n, h, w, c] with c = 1 or 3, uint8, or float in [0, 1].
      origin: name of the array in messages.

    Returns:
      uint8 ``[n, h, w, c]``.

    Raises:
      UserError: as `arrays`.
    """
    stored = _Stored(Path(origin), "", array.shape, array.dtype, False)
    _check(stored)
    return _to_uint8(stored, 0, array).reshape(_image_shape(stored))


def stored_shapes(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of each array of a `.npy` or `.npz` file, by key; the arrays are not read.

    Raises:
      UserError: the file is missing, of another type or damaged.
    """
    path, found = _existing(path), {}
    with reading(path, "NumPy file"):
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return {"": npy_header(file, os.fstat(file.fileno()).st_size)[:2]}
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as file:
                    found[member.filename.removesuffix(".npy")] = npy_header(file, member.file_size)[:2]
    return found


def _existing(path: str | Path) -> Path:
    file = Path(path).expanduser()
    if not str(path) or not file.exists():
        raise UserError(f"'{path}' does not exist: give a .npy or .npz file")
    if file.is_dir() or file.suffix not in (".npy", ".npz"):
        raise UserError(f"{file} is not a .npy or .npz file: save the images with numpy.save, or give a folder")
    return file


def _inspect(path: Path, key: str) -> _Stored:
    """Returns the header of the image array, checked."""
    with reading(path, "NumPy file"):
        if path.suffix == ".npy":
            with path.open("rb") as file:
                stored = _Stored(path, "", *npy_header(file, os.fstat(file.fileno()).st_size))
        else:
            key = _find_key(path, check_npz(path), key)
            check_npz(path, key)
            with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
                stored = _Stored(path, key, *npy_header(file, archive.getinfo(f"{key}.npy").file_size))
    _check(stored)
    return stored


def _find_key(path: Path, keys: list[str], key: str) -> str:
    if key:
        if key not in keys:
            raise UserError(f"{path} has no array '{key}'{nearest(key, keys)}")
        return key
    candidates = [k for k in IMAGE_KEYS if k in keys] or (keys if len(keys) == 1 else [])
    if not candidates:
        raise UserError(f"{path} holds {', '.join(sorted(keys)) or 'nothing'}: set image_key to the array of images")
    return candidates[0]


def _check(stored: _Stored) -> None:
    shape, dtype = stored.shape, stored.dtype
    if dtype.hasobject:
        raise UserError(f"{stored} holds Python objects, which are not loaded: save one array of equal-sized images")
    if dtype != np.uint8 and dtype.kind != "f":
        raise UserError(f"{stored} is {dtype}: images must be uint8, or float in [0, 1]")
    if len(shape) == 2 and dtype.kind == "f":
        embeddings = "--config=turtle_embeddings, or FeatureClustering in Python"
        raise UserError(f"{stored} has shape {shape}: these are features [n, d], not images: use {embeddings}")
    if len(shape) not in (3, 4):
        raise UserError(f"{stored} has shape {shape}: images must be [n, h, w] or [n, h, w, c]")
    if 0 in shape:
        raise UserError(f"{stored} has shape {shape}: it holds no images")
    if len(shape) == 3 and (shape[2] in (1, 3) or (shape[2] == 4 and min(shape[:2]) >= 16)):
        one = f"one colour picture is [1, {shape[0]}, {shape[1]}, 3]"
        raise UserError(f"{stored} has shape {shape}, which may be one picture: {one}, grey ones are [n, h, w, 1]")
    if len(shape) == 4 and shape[3] not in (1, 3):
        hint = "transpose(0, 2, 3, 1), channels come last" if shape[1] in (1, 3) else "keep 1 or 3 channels"
        raise UserError(f"{stored} has shape {shape}, which means {shape[3]} channels: {hint}")


def _image_shape(stored: _Stored) -> tuple[int, ...]:
    return stored.shape if len(stored.shape) == 4 else (*stored.shape, 1)


def _pixels(stored: _Stored, chunk: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields ``(first row, uint8 [m, h, w, c])`` for each chunk."""
    first = 0
    with reading(stored.path, "NumPy file"):
        for rows in _raw(stored, chunk):
            yield first, _to_uint8(stored, first, rows).reshape(-1, *_image_shape(stored)[1:])
            first += len(rows)


def _raw(stored: _Stored, chunk: int) -> Iterator[np.ndarray]:
    if not stored.key or stored.fortran:
        # The rows of a Fortran-ordered array are spread over the whole array, so it is read as a whole.
        loaded = np.load(stored.path, mmap_mode="r", allow_pickle=False)
        array = loaded[stored.key] if stored.key else loaded
        yield from (array[i : i + chunk] for i in range(0, stored.shape[0], chunk))
        return
    with zipfile.ZipFile(stored.path) as archive, archive.open(f"{stored.key}.npy") as file:
        npy_header(file, archive.getinfo(f"{stored.key}.npy").file_size)
        row_bytes = stored.dtype.itemsize * int(np.prod(stored.shape[1:]))
        for start in range(0, stored.shape[0], chunk):
            size = min(chunk, stored.shape[0] - start) * row_bytes
            data = file.read(size)
            if len(data) < size:
                raise ValueError("it ends early")
            yield np.frombuffer(data, stored.dtype).reshape(-1, *stored.shape[1:])


def _to_uint8(stored: _Stored, first: int, rows: np.ndarray) -> np.ndarray:
    if rows.dtype == np.uint8:
        return rows
    finite = np.isfinite(rows).reshape(len(rows), -1).all(1)
    if not finite.all():
        raise UserError(
            f"{stored} row {first + int(finite.argmin())} has pixels that are NaN or infinite: correct them"
        )
    low, high = float(rows.min()), float(rows.max())
    if low < -SLACK or high > 1 + SLACK:
        raise UserError(f"{stored} has pixels from {low:g} to {high:g}: scale floats to [0, 1], or store uint8")
    return np.rint(rows * np.float32(255)).astype(np.uint8)


def _labels(path: Path, key: str, n: int) -> np.ndarray | None:
    """Returns the labels of a `.npz`."""
    if path.suffix == ".npy":
        raise UserError(f"{path} holds one array: labels (label_key='{key}') need a .npz")
    with reading(path, "NumPy file"), np.load(path, allow_pickle=False) as archive:
        check_npz(path, key)
        if key not in archive.files:
            raise UserError(f"{path} has no array '{key}'{nearest(key, archive.files)}")
        labels = checked_text(archive[key])
    return read_labels(labels, n, f"{path} ['{key}']")
