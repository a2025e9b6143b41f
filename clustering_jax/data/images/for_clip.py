"""CLIP's preprocessing of images: resize the shorter side, then crop the centre.

For RGB and grey images, the pixels equal those of the evaluation transforms of OpenAI and open_clip, which use
torchvision on Pillow. Palettes and transparency are converted before the resize, as Hugging Face does, not after it.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps

from clustering_jax.data.images.decode import fit_image
from clustering_jax.errors import UserError


def clip_image(image: Image.Image, size: int, resize: int | None = None) -> np.ndarray:
    """Applies the EXIF orientation, converts to RGB, resizes the shorter side and crops the centre.

    The resize is antialiased bicubic. Sizes and offsets are rounded as in torchvision's Resize and CenterCrop. The
    image processor of Hugging Face rounds an odd margin down instead of to even, which shifts the crop by one pixel for
    some sizes.

    Args:
      image: an image of Pillow.
      size: side of the result in pixels.
      resize: length of the shorter side in pixels before the crop, at least `size`. None is `size`.

    Returns:
      uint8 ``[size, size, 3]``.

    Raises:
      UserError: `resize` is below `size`.
      OSError: the pixels have 32 bits, see `decode.fit_image`.
    """
    resize = resize or size
    if not 1 <= size <= resize:
        raise UserError(f"a centre of {size} pixels can't be cropped from images resized to {resize}")
    image = ImageOps.exif_transpose(image)
    image = Image.fromarray(fit_image(image, (image.height, image.width, 3)))
    short = min(image.size)
    width, height = (resize if side == short else int(resize * side / short) for side in image.size)
    # Pillow returns the image itself if nothing changes.
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    top, left = round((height - size) / 2), round((width - size) / 2)
    return np.ascontiguousarray(pixels[top : top + size, left : left + size])


def clip_images(images: np.ndarray, size: int, resize: int | None = None) -> np.ndarray:
    """Applies `clip_image` to each image, with threads.

    Args:
      images: uint8 ``[n, h, w, c]`` with c = 1 or 3.
      size: side of the result in pixels.
      resize: as for `clip_image`.

    Returns:
      uint8 ``[n, size, size, 3]``.

    Raises:
      UserError: `images` has another type or shape, or `resize` is below `size`.
    """
    if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype != np.uint8:
        raise UserError(f"images are {images.dtype} {list(images.shape)}: they must be uint8 [n, h, w, 1 or 3]")

    def one(pixels: np.ndarray) -> np.ndarray:
        return clip_image(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), size, resize)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.array([*pool.map(one, images)], np.uint8).reshape(-1, size, size, 3)
