"""The pixels of the preprocessing equal torchvision's Resize and CenterCrop on Pillow images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clustering_jax.data.images.for_clip import clip_image, clip_images
from clustering_jax.errors import UserError
from tests.fixtures.make_clip_fixture import PIXELS, noise
from tests.paths import FIXTURES

STORED = np.load(FIXTURES / "clip_pixels.npz")
PICTURE = noise((20, 31, 3))


@pytest.mark.parametrize(("h", "w", "channels", "size", "resize"), PIXELS)
def test_pixels_equal_torchvision(h, w, channels, size, resize):
    images = noise((h, w, channels))
    for found in (
        clip_image(Image.fromarray(images.squeeze()), size, resize),
        clip_images(images[None], size, resize)[0],
    ):
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, STORED[f"{h}x{w}"])


def test_a_batch_equals_its_single_images():
    images = noise((7, 20, 31, 3))
    wanted = [clip_image(Image.fromarray(x), 12) for x in images]
    np.testing.assert_array_equal(clip_images(images, 12), wanted)
    assert clip_images(images[:0], 12).shape == (0, 12, 12, 3)


def test_an_image_of_the_right_size_is_unchanged():
    images = noise((2, 16, 16, 3))
    np.testing.assert_array_equal(clip_images(images, 16), images)


def with_alpha(pixels: np.ndarray) -> Image.Image:
    """An image that is transparent in one half. The colours under the transparency are unchanged."""
    alpha = np.where(np.arange(pixels.shape[1]) < 10, 0, 255).astype(np.uint8)
    return Image.fromarray(np.dstack([pixels, np.broadcast_to(alpha, pixels.shape[:2])]))


def sideways(pixels: np.ndarray, tmp_path: Path) -> Image.Image:
    """An image that is stored rotated by 90 degrees, with the EXIF entry for it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "turned.png", exif=exif)
    return Image.open(tmp_path / "turned.png")


@pytest.mark.parametrize("kind", ["alpha", "exif", "palette", "16-bit"])
def test_any_picture_becomes_rgb_first(kind, tmp_path):
    pixels = PICTURE
    if kind == "alpha":
        image = with_alpha(pixels)
    elif kind == "exif":
        image = sideways(pixels, tmp_path)
    elif kind == "palette":
        image = Image.fromarray(pixels).quantize(9)
        pixels = np.asarray(image.convert("RGB"))
    else:
        grey = pixels[..., 0]
        image, pixels = Image.fromarray(grey.astype(np.uint16) * 257), np.dstack([grey] * 3)
    np.testing.assert_array_equal(clip_image(image, 13), clip_image(Image.fromarray(pixels), 13))


@pytest.mark.parametrize(
    ("images", "size", "resize", "message"),
    [
        (noise((1, 9, 9, 3)), 8, 7, "a centre of 8 pixels can't be cropped from images resized to 7"),
        (noise((1, 9, 9, 3)), 0, None, "a centre of 0 pixels"),
        (noise((1, 9, 9, 2)), 8, None, r"images are uint8 \[1, 9, 9, 2\]"),
        (noise((9, 9, 3)), 8, None, r"images are uint8 \[9, 9, 3\]"),
        (noise((1, 9, 9, 3)) / 255, 8, None, r"images are float64 \[1, 9, 9, 3\]"),
    ],
)
def test_wrong_input_is_refused(images, size, resize, message):
    with pytest.raises(UserError, match=message):
        clip_images(images, size, resize)
