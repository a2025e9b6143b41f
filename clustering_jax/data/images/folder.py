"""Image data sets: scikit-learn's digits, folders of image files, generated images; and new images as a stream."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from clustering_jax.data.base import Dataset, blocks_of, row_ids
from clustering_jax.data.images.arrays import iter_array, refuse_constant
from clustering_jax.data.images.decode import MODES, decode_chunks, fit_image, lazy_files
from clustering_jax.data.images.listing import existing_folder, image_paths, list_images
from clustering_jax.data.images.streaming import load_grain
from clustering_jax.errors import UserError

CHUNK = 512


def digits() -> Dataset:
    """Returns scikit-learn's 1,797 handwritten digits, uint8 ``[n, 8, 8, 1]``, with labels. It needs no download."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images[..., None] * (255 / 16)).astype(np.uint8)
    return Dataset({"image": images}, row_ids(len(images)), bunch.target.astype(np.int64), "digits", "all")


def synthetic(*, n: int = 256, size: int = 32, channels: int = 3, num_clusters: int = 10, seed: int = 0) -> Dataset:
    """Generates images of stripes. The class sets their angle and colour; the phase and the noise are random.

    Args:
      n: number of images, at least 1.
      size: side of the images in pixels, at least 1.
      channels: 3 for RGB, 1 for grey.
      num_clusters: number of classes, at least 1.
      seed: at least 0.

    Returns:
      uint8 ``[n, size, size, channels]`` in random order of the classes. The class sizes differ by at most 1.

    Raises:
      UserError: a number is out of range.
    """
    if min(n, size, num_clusters) < 1 or channels not in MODES:
        wrong = f"n {n}, size {size}, num_clusters {num_clusters}, channels {channels}"
        raise UserError(f"synthetic images of {wrong}: all must be positive, channels 1 or 3")
    rng = np.random.default_rng(seed)
    labels = rng.permutation(n) % num_clusters
    turn = (labels / num_clusters).astype(np.float32)[:, None, None, None]
    y, x = np.mgrid[:size, :size].astype(np.float32)[..., None] / size
    phase = rng.random((n, 1, 1, 1), np.float32)
    stripes = np.cos(2 * np.pi * (2 * (x * np.cos(np.pi * turn) + y * np.sin(np.pi * turn)) + phase))
    colour = 0.5 + 0.4 * np.cos(2 * np.pi * (turn + np.arange(channels, dtype=np.float32) / 3))
    noise = rng.normal(0, 0.05, (n, size, size, channels)).astype(np.float32)
    images = np.rint(255 * np.clip(colour * (0.7 + 0.3 * stripes) + noise, 0, 1)).astype(np.uint8)
    return Dataset({"image": images}, row_ids(n), labels.astype(np.int64), "synthetic", f"seed {seed}")


def folder(
    path: str | Path,
    *,
    size: int,
    labels_from_folders: bool = False,
    on_error: str = "error",
    classes: str | Sequence[str] = (),
    expected_count: int = 0,
    channels: int = 3,
    streaming: bool = False,
    shuffle_block: int = 0,
    shuffle_window: int = 16,
) -> Dataset:
    """Reads the image files below a folder, flat or nested, into one array. Nothing is cached on disk.

    The rows are in natural order of their paths ("2.png" comes before "10.png"). EXIF orientation is applied,
    transparency is dropped, and 16-bit grey keeps its high byte. The whole image is resized with antialiased bilinear
    interpolation, so the aspect ratio is not kept. Hidden files and files of other types are ignored.

    Args:
      path: the folder.
      size: side of the result in pixels, at least 1.
      labels_from_folders: take the topmost folders, in natural order, as labels. Otherwise there are no labels.
      on_error: "error" stops at an unreadable image; "skip" leaves it out and adds a note.
      classes: keep only these class folders of `path` or of ``path/train``: a list, or a name in
        `clustering_jax.data.images.synsets.SYNSETS`.
      expected_count: number of images that must be there; 0 accepts any number.
      channels: 3 for RGB, 1 for grey.
      streaming: read each image when a batch needs it. The pixels are the same as without it. An unreadable image
        is reported when it is read. With ``on_error="skip"``, every image is read once at the start to find them.
      shuffle_block: rows per block of the block shuffle, see `clustering_jax.data.base.Blocks`; 0 is a full shuffle.
      shuffle_window: number of blocks that are mixed with each other, at least 1.

    Returns:
      uint8 ``[n, size, size, channels]``. The ids are the paths of the files relative to `path`.

    Raises:
      UserError: the folder does not exist or has no images, an image is unreadable, class folders are missing, or
        the number of images is not the expected one.
    """
    shape, blocks = _shape(size, size, channels), blocks_of(shuffle_block, shuffle_window)
    root, names, labels, notes = list_images(path, classes, expected_count, labels_from_folders, on_error)
    if streaming:
        load_grain()
    images = None if streaming else np.empty((len(names), *shape), np.uint8)
    kept, skipped = names, list[str]()
    if images is not None or on_error == "skip":
        kept, skipped = _readable(root, names, shape, on_error, images)
    if skipped:
        notes += (f"skipped {len(skipped)} unreadable of {len(names)} images in {root}: {skipped[0]}",)
    if not kept:
        raise UserError(f"none of the {len(names)} images in {root} can be read: {skipped[0]}")
    labels = None if labels is None else labels[np.isin(names, kept)]
    if images is not None:
        refuse_constant(images[: len(kept)], str(root))
    rows = lazy_files(root, kept, shape) if images is None else images[: len(kept)]
    return Dataset({"image": rows}, kept, labels, root.resolve().name, "all", notes, blocks=blocks)


def _readable(
    root: Path, names: list[str], shape: tuple[int, ...], on_error: str, images: np.ndarray | None
) -> tuple[list[str], list[str]]:
    """Decodes every image, and writes the readable ones to `images` unless that is None.

    Returns:
      ``(names of the readable images, one line about each unreadable image)``.
    """
    kept: list[str] = []
    skipped: list[str] = []
    for ids, rows, failures in decode_chunks(root, names, shape, CHUNK, on_error):
        if images is not None:
            images[len(kept) : len(kept) + len(ids)] = rows
        kept, skipped = kept + ids, skipped + failures
    return kept, skipped


def iter_folder(
    path: str | Path, size: int | tuple[int, int], chunk: int, *, channels: int = 3, on_error: str = "error"
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yields the images that `folder` loads in chunks, in constant memory.

    Args:
      path: the folder.
      size: side of the result in pixels, or (height, width).
      chunk: largest number of images at a time.
      channels: 3 for RGB, 1 for grey.
      on_error: "error" stops at an unreadable image; "skip" leaves it out with a warning.

    Yields:
      ``(ids, uint8 [m, h, w, channels])`` with m <= chunk.
    """
    shape = _shape(*((size, size) if isinstance(size, int) else size), channels)
    root = existing_folder(path)
    names, _ = image_paths(root, [], on_error)
    for ids, rows, failures in decode_chunks(root, names, shape, chunk, on_error):
        if failures:
            warnings.warn(f"skipped {len(failures)} unreadable images in {root}: {failures[0]}", stacklevel=2)
        if ids:
            yield ids, rows


def iter_images(
    path: str | Path, shape: tuple[int, ...], chunk: int, *, on_error: str = "error"
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yields the images of a folder (`iter_folder`) or of a file (`iter_array`), resized to one shape.

    Args:
      path: a folder of images, or a `.npy` or `.npz` file.
      shape: (h, w, c) of the result.
      chunk: largest number of images at a time.
      on_error: as for `iter_folder`.

    Yields:
      ``(ids, uint8 [m, h, w, c])`` with m <= chunk.
    """
    if Path(path).expanduser().is_dir():
        yield from iter_folder(path, (shape[0], shape[1]), chunk, channels=shape[2], on_error=on_error)
        return
    for ids, rows in iter_array(path, chunk):
        yield ids, fit_rows(rows, shape)


def fit_rows(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resizes images.

    Args:
      rows: uint8 ``[n, h, w, c]`` with c = 1 or 3.
      shape: (h, w, c) of the result.

    Returns:
      uint8 [n, *shape]: `fit_image` of each row.
    """
    if rows.shape[1:] == tuple(shape):
        return rows
    pictures = (Image.fromarray(row[..., 0] if row.shape[2] == 1 else row) for row in rows)
    return np.stack([fit_image(picture, shape) for picture in pictures])


def _shape(height: int, width: int, channels: int) -> tuple[int, int, int]:
    if min(height, width) < 1 or channels not in MODES:
        raise UserError(f"images of {height} x {width} x {channels}: size must be positive and channels 1 or 3")
    return height, width, channels
