"""Decodes image files to pixels: a whole set in order, or single images on demand."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from clustering_jax.data.identity import files_digest
from clustering_jax.data.images.streaming import LazyArray
from clustering_jax.errors import UserError

# Number of a tag of TIFF.
BITS_PER_SAMPLE = 258
MODES = {1: "L", 3: "RGB"}
# Pillow knows more formats, and starts other programs for some of them: a file named .png may be EPS inside.
IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
PICTURE_FORMATS: tuple[str, ...] = IMAGE_FORMATS
# Suffixes that Pillow reads with the plugin that the extra "heic" installs; none without it.
HEIC: frozenset[str] = frozenset()
with contextlib.suppress(ImportError):
    from pillow_heif import register_heif_opener

    register_heif_opener()
    HEIC = frozenset({".heic", ".heif"})
    PICTURE_FORMATS = (*IMAGE_FORMATS, "HEIF")


def decode_chunks(
    root: Path, names: list[str], shape: tuple[int, ...], chunk: int, on_error: str
) -> Iterator[tuple[list[str], np.ndarray, list[str]]]:
    """Decodes files with threads, one chunk at a time.

    Each chunk is finished before the next one starts. So neither the memory nor the work after a failure grows with
    the folder.

    Args:
      root: the folder.
      names: paths of the files relative to `root`. They are also the ids.
      shape: (h, w, c) of the result.
      chunk: files per chunk, at least 1.
      on_error: "error" or "skip", see `clustering_jax.data.images.folder.folder`.

    Yields:
      ``(ids, rows uint8 [m, h, w, c], failures)``, where `failures` has one line per unreadable file.

    Raises:
      UserError: a file is unreadable and `on_error` is "error".
    """

    def read(name: str) -> np.ndarray | str:
        return read_image(root / name, partial(fit_image, shape=shape))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(names), chunk):
            ids = names[start : start + chunk]
            results = list(pool.map(read, ids))
            failures = [r for r in results if isinstance(r, str)]
            if failures and on_error == "error":
                raise UserError(_unreadable(failures[0]))
            good = [(i, r) for i, r in zip(ids, results, strict=True) if not isinstance(r, str)]
            rows = np.stack([r for _, r in good]) if good else np.empty((0, *shape), np.uint8)
            yield [i for i, _ in good], rows, failures


def lazy_files(root: Path, names: list[str], shape: tuple[int, ...]) -> LazyArray:
    """Returns the image files `names` below `root` as an array that reads them on demand.

    Indexing the array raises UserError if an image is unreadable.

    Args:
      root: the folder.
      names: paths of the n files relative to `root`.
      shape: (h, w, c) of each image in the result.

    Returns:
      uint8 [n, h, w, c].
    """

    def read(rows: np.ndarray) -> Iterator[np.ndarray]:
        for row in rows:
            image = read_image(root / names[row], partial(fit_image, shape=shape))
            if isinstance(image, str):
                raise UserError(_unreadable(image))
            yield image

    return LazyArray((len(names), *shape), read, partial(files_digest, root, names, times=False))


def _unreadable(reason: str) -> str:
    return f"{reason}; remove it, or set on_error to skip"


def read_image(path: Path, fit: Callable[[Image.Image], np.ndarray]) -> np.ndarray | str:
    """Opens an image, applies its EXIF orientation, and returns ``fit(image)``.

    Returns:
      What `fit` returns; or, if the image is unreadable, a line of text that says why.
    """
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as image:
            ImageOps.exif_transpose(image, in_place=True)
            return fit(image)
    except UnidentifiedImageError:
        return f"{path} is not an image"
    # Decoders of broken files raise nearly anything: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        return f"{path} can't be read ({' '.join(str(error).split()) or type(error).__name__})"


def fit_image(image: Image.Image, shape: tuple[int, ...]) -> np.ndarray:
    """Resizes the whole image with antialiased bilinear interpolation. Transparency is dropped.

    Args:
      image: an image of Pillow.
      shape: (h, w, c) of the result, with c = 1 or 3.

    Returns:
      uint8 [h, w, c].

    Raises:
      OSError: the pixels have 32 bits, so their range is unknown. Decoders raise nearly anything on broken files.
    """
    if image.mode.startswith("I;16"):
        # convert() would clip at 255. For 16-bit colour images, Pillow keeps the high byte; do the same here.
        pixels = np.asarray(image)
        if 0 < pixels.max() < 256:
            raise OSError("16-bit pixels, all below 256 of 65535, which would be black: store them in 8 bits")
        bits = min(getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,)))  # a TIFF may have 12
        image = Image.fromarray((pixels >> (bits - 8)).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise OSError(f"32-bit pixels, mode {image.mode}")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    image = image.convert(MODES[shape[2]])
    if image.size != (shape[1], shape[0]):
        image = image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(shape)
