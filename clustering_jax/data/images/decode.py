"""Image files to pixels: every picture of a set in turn, or those that are wanted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from clustering_jax.data.images.streaming import Lazy
from clustering_jax.errors import UserError

MODES = {1: "L", 3: "RGB"}
# Suffixes that Pillow reads with the plugin that the extra "heic" installs; none without it.
HEIC = frozenset()
with contextlib.suppress(ImportError):
    from pillow_heif import register_heif_opener

    register_heif_opener()
    HEIC = frozenset({".heic", ".heif"})


def decoded(
    root: Path, names: list[str], shape: tuple[int, ...], chunk: int, on_error: str
) -> Iterator[tuple[list[str], np.ndarray, list[str]]]:
    """``(ids, rows uint8 [m, h, w, c], what went wrong with the others)`` for every `chunk` files.

    Chunks are waited for one by one, so that neither memory nor work after a failure grows with the folder.
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


def lazy_files(root: Path, names: list[str], shape: tuple[int, ...]) -> Lazy:
    """The images below `root` as `shape` (h, w, c), read when they are wanted; UserError then for an unreadable one."""

    def read(rows: np.ndarray) -> Iterator[np.ndarray]:
        for row in rows:
            found = read_image(root / names[row], partial(fit_image, shape=shape))
            if isinstance(found, str):
                raise UserError(_unreadable(found))
            yield found

    return Lazy((len(names), *shape), read)


def _unreadable(reason: str) -> str:
    return f"{reason}; remove it, or set on_error to skip"


def read_image(path: Path, fit: Callable[[Image.Image], np.ndarray]) -> np.ndarray | str:
    """What `fit` makes of the image, upright, or in one line why there is none."""
    try:
        with Image.open(path) as image:
            ImageOps.exif_transpose(image, in_place=True)
            return fit(image)
    except UnidentifiedImageError:
        return f"{path} is not an image"
    # Decoders of broken files raise nearly anything: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        return f"{path} can't be read ({' '.join(str(error).split()) or type(error).__name__})"


def fit_image(image: Image.Image, shape: tuple[int, ...]) -> np.ndarray:
    """The whole picture as uint8 of `shape` (h, w, c), c 1 or 3: antialiased bilinear, transparency dropped.

    Raises:
      OSError: 32-bit pixels, whose range is unknown. Decoders raise nearly anything over broken files.
    """
    if image.mode.startswith("I;16"):
        # convert() would clip at 255; of 16-bit colour Pillow keeps the high byte.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise OSError(f"32-bit pixels, mode {image.mode}")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    image = image.convert(MODES[shape[2]])
    if image.size != (shape[1], shape[0]):
        image = image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(shape)
