"""Images as a pretrained encoder takes them: resized, and the centre cut out.

The settings are those of Hugging Face's `preprocessor_config.json`; the pixels are those of its Pillow processors.
Pixels stay uint8: encoders normalise them on the device.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from clustering_jax.data.images.decode import fit_image
from clustering_jax.errors import UserError

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
# Most pixels of a side that a file may ask for.
MAX_SIDE = 2**14
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Preprocessing(NamedTuple):
    """How an encoder wants its images.

    Args:
      size: height and width of the result in pixels.
      resize: pixels of the shorter side before the centre of `size` is cut out; 0 resizes to `size` exactly, whatever
        the aspect ratio.
      interpolation: key of `FILTERS`; all are antialiased.
      mean: of the channels red, green, blue in [0, 1], for the encoder.
      std: of the channels in [0, 1], for the encoder.
    """

    size: tuple[int, int] = (224, 224)
    resize: int = 0
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


def preprocess(image: Image.Image, settings: Preprocessing) -> np.ndarray:
    """EXIF orientation applied, RGB, resized, the centre cut out.

    Args:
      image: of any size and mode.
      settings: the encoder's.

    Returns:
      uint8 ``[height, width, 3]``.

    Raises:
      OSError: see `decode.fit_image`.
    """
    image = ImageOps.exif_transpose(image)
    image = Image.fromarray(fit_image(image, (image.height, image.width, 3)))
    height, width = settings.size
    if settings.resize:
        short = min(image.size)
        columns, rows = (settings.resize if n == short else int(settings.resize * n / short) for n in image.size)
    else:
        rows, columns = height, width
    # Pillow returns the image itself where nothing changes.
    pixels = np.asarray(image.resize((columns, rows), FILTERS[settings.interpolation]))
    top, left = (rows - height) // 2, (columns - width) // 2
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def preprocess_all(images: np.ndarray, settings: Preprocessing) -> np.ndarray:
    """`preprocess` of each image, by threads.

    Args:
      images: uint8 [n, h, w, c], c 1 or 3.
      settings: the encoder's.

    Returns:
      uint8 ``[n, height, width, 3]``.

    Raises:
      UserError: the images have another type or shape.
    """
    if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype != np.uint8:
        raise UserError(f"images are {images.dtype} {list(images.shape)}: uint8 [n, h, w, 1 or 3] is wanted")
    rows = images[..., 0] if images.shape[3] == 1 else images
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = [*pool.map(lambda pixels: preprocess(Image.fromarray(pixels), settings), rows)]
    return np.array(results, np.uint8).reshape(-1, *settings.size, 3)


def from_json(path: Path, tree: Mapping[str, Any], default: Preprocessing) -> Preprocessing:
    """The settings in Hugging Face's `preprocessor_config.json`.

    Args:
      path: of the file, for messages.
      tree: its content.
      default: for what it leaves out.

    Raises:
      UserError: the file asks for a step that `preprocess` does not do.
    """
    steps = {"resize": True, "rescale": True, "normalize": True, "pad": False}
    for step, wanted in steps.items():
        if (given := tree.get(f"do_{step}")) not in (None, wanted):
            raise UserError(f"{path}: do_{step} {given!r} is not supported, only {wanted}")
    if abs((factor := tree.get("rescale_factor") or 1 / 255) * 255 - 1) > 1e-3:
        raise UserError(f"{path}: rescale_factor {factor!r} is not supported, only 1/255")
    size, resize = _sizes(path, tree, default)
    if max(*size, resize) > MAX_SIDE:
        raise UserError(f"{path}: images of {max(*size, resize)} pixels are not supported, only up to {MAX_SIDE}")
    return Preprocessing(
        size,
        resize,
        _interpolation(path, tree, default),
        _channels(path, tree, "image_mean", default.mean),
        _channels(path, tree, "image_std", default.std),
    )


def _sizes(path: Path, tree: Mapping[str, Any], default: Preprocessing) -> tuple[tuple[int, int], int]:
    """`Preprocessing.size` and `.resize`."""
    size, crop = tree.get("size"), tree.get("crop_size") if tree.get("do_center_crop", True) else None
    if size is None and crop is None:
        return default.size, default.resize
    if isinstance(size, int):
        # Older files: the shorter side where a centre is cut out, a square otherwise.
        size = {"shortest_edge": size} if crop or "crop_pct" in tree else {"height": size, "width": size}
    if not isinstance(size, dict) or size.get("longest_edge"):
        raise UserError(f"{path}: size {size!r} is not supported, only {{'shortest_edge': ...}} or height and width")
    short, exact = size.get("shortest_edge"), _square(size)
    if isinstance(short, int) and (share := tree.get("crop_pct")):
        # ConvNeXt's processor: from 384 pixels on the whole image is squeezed into the square.
        return ((short, short), int(short / share)) if short < 384 else ((short, short), 0)
    if exact and (crop is None or _square(crop) == exact):
        return exact, 0
    cut = _square(crop)
    if isinstance(short, int) and cut and short >= max(cut):
        return cut, short
    raise UserError(f"{path}: size {size!r} with crop_size {crop!r} is not supported")


def _square(size: Any) -> tuple[int, int] | None:
    """Height and width of a size in either form."""
    values = (size, size) if isinstance(size, int) else (size.get("height"), size.get("width")) if size else ()
    return values if values and all(isinstance(v, int) and v > 0 for v in values) else None


def _interpolation(path: Path, tree: Mapping[str, Any], default: Preprocessing) -> str:
    names = {int(value): name for name, value in FILTERS.items()}
    given = tree.get("resample")
    if given is not None and given not in names:
        raise UserError(f"{path}: resample {given!r} is not supported, only {sorted(names)}")
    return default.interpolation if given is None else names[given]


def _channels(path: Path, tree: Mapping[str, Any], name: str, default: tuple[float, ...]) -> tuple[float, ...]:
    values = tree.get(name, list(default))
    if not isinstance(values, list) or len(values) != 3 or not all(isinstance(v, int | float) for v in values):
        raise UserError(f"{path}: {name} {values!r} is not supported, only a number for each of 3 channels")
    return tuple(values)
