"""Images as CLIP's image transformer takes them: the shorter side resized, the centre cut out.

For RGB and grey images the pixels are those of OpenAI's and open_clip's evaluation transforms, torchvision's on Pillow.
Palettes and transparency are converted before the resize, as Hugging Face does, not after it.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps

from clustering_jax.data.images.decode import fit_image
from clustering_jax.errors import UserError


def clip_image(image: Image.Image, size: int, resize: int | None = None) -> np.ndarray:
    """EXIF orientation applied, RGB, the shorter side resized to `resize` pixels (antialiased bicubic), centre cut out.

    Sizes and places are rounded as by torchvision's Resize and CenterCrop. Hugging Face's image processor rounds an odd
    margin down instead of to even, which shifts the crop by a pixel for some sizes.

    Args:
      size: side of the result.
      resize: `size` or more; None is `size`.

    Returns:
      uint8 ``[size, size, 3]``.

    Raises:
      UserError: `resize` is below `size`.
      OSError: see `decode.fit_image`.
    """
    resize = resize or size
    if not 1 <= size <= resize:
        raise UserError(f"a centre of {size} pixels can't be cut out of images resized to {resize}")
    image = ImageOps.exif_transpose(image)
    image = Image.fromarray(fit_image(image, (image.height, image.width, 3)))
    short = min(image.size)
    width, height = (resize if side == short else int(resize * side / short) for side in image.size)
    # Pillow returns the image itself where nothing changes.
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    top, left = round((height - size) / 2), round((width - size) / 2)
    return np.ascontiguousarray(pixels[top : top + size, left : left + size])


def clip_images(images: np.ndarray, size: int, resize: int | None = None) -> np.ndarray:
    """`clip_image` of each of uint8 ``[n, h, w, c]``, c 1 or 3, by threads: uint8 ``[n, size, size, 3]``."""
    if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype != np.uint8:
        raise UserError(f"images are {images.dtype} {list(images.shape)}: uint8 [n, h, w, 1 or 3] is wanted")

    def one(pixels: np.ndarray) -> np.ndarray:
        return clip_image(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), size, resize)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.array([*pool.map(one, images)], np.uint8).reshape(-1, size, size, 3)
