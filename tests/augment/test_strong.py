"""Compares each operation of the strong augmentation with Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from clustering_jax.augment.strong import (
    NAMES,
    OPERATIONS,
    WARPS,
    cut_out,
    largest_cutout,
    random_operation,
    strong_augment,
)
from tests.augment.test_augment import photos

IMAGES = photos(4, 21, 26)
operate = jax.jit(random_operation)
augment = jax.jit(strong_augment, static_argnames=("size", "rounds", "cutout"))


def enhanced(kind):
    return lambda image, m: kind(image).enhance(0.05 + 0.9 * m)


def sheared(image, row, column, amount):
    """Applies Pillow's transform around the centre of the image."""
    centre = (np.array(image.size) - 1) / 2 + 0.5
    matrix = np.eye(2)
    matrix[row, column] = amount
    offset = centre - matrix @ centre
    data = (*matrix[0], offset[0], *matrix[1], offset[1])
    return image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


def moved(image, right, down):
    data = (1, 0, right, 0, 1, down)
    return image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


PILLOW = {
    "identity": lambda image, m: image,
    "autocontrast": lambda image, m: ImageOps.autocontrast(image),
    "equalize": lambda image, m: ImageOps.equalize(image),
    "solarize": lambda image, m: ImageOps.solarize(image, 256 * m),
    "posterize": lambda image, m: ImageOps.posterize(image, 4 + int(5 * m)),
    "color": enhanced(ImageEnhance.Color),
    "contrast": enhanced(ImageEnhance.Contrast),
    "brightness": enhanced(ImageEnhance.Brightness),
    "sharpness": enhanced(ImageEnhance.Sharpness),
    "rotate": lambda image, m: image.rotate(30 * (2 * m - 1), Image.Resampling.BILINEAR),
    "shear_x": lambda image, m: sheared(image, 0, 1, 0.1 * (2 * m - 1)),
    "shear_y": lambda image, m: sheared(image, 1, 0, 0.1 * (2 * m - 1)),
    "translate_x": lambda image, m: moved(image, 0.1 * image.width * (2 * m - 1), 0),
    "translate_y": lambda image, m: moved(image, 0, 0.1 * image.height * (2 * m - 1)),
}


@pytest.mark.parametrize("magnitude", [0.0, 0.3, 0.77, 0.999])
@pytest.mark.parametrize("name", NAMES)
def test_operation_equals_pillow(name, magnitude):
    n = len(IMAGES)
    result = operate(jnp.full(n, NAMES.index(name)), jnp.full(n, magnitude, jnp.float32), jnp.asarray(IMAGES))
    expected = np.stack([np.asarray(PILLOW[name](Image.fromarray(image), magnitude)) for image in IMAGES])
    error = np.abs(255 * np.asarray(result) - expected)
    if name in WARPS:
        # Where the source lies half outside, Pillow repeats the pixels of the border, and this package fades them out.
        inside = operate(
            jnp.full(n, NAMES.index(name)), jnp.full(n, magnitude, jnp.float32), np.ones(IMAGES.shape, np.float32)
        )
        error = error[np.asarray(inside) > 0.999]
    assert error.max() < (1.01 if name in WARPS or name in ("sharpness", "contrast") else 0.01)


def test_every_image_has_its_own_operation():
    choice = jnp.array([0, NAMES.index("solarize"), 0, NAMES.index("posterize")])
    result = 255 * np.asarray(operate(choice, jnp.full(4, 0.1), jnp.asarray(IMAGES)))
    same = np.abs(result - IMAGES).max((1, 2, 3)) < 0.01
    assert same.tolist() == [True, False, True, False] and len(OPERATIONS) + len(WARPS) == 14


def test_constant_images_stay_finite():
    flat = np.full((1, 8, 8, 3), 77, np.uint8)
    for number in range(len(NAMES)):
        result = np.asarray(operate(jnp.array([number]), jnp.array([0.5]), jnp.asarray(flat)))
        assert np.isfinite(result).all() and result.min() >= 0 and result.max() <= 1


def test_cut_out_sets_a_square_to_zero():
    u = jnp.array([[0.2, 0.5, 0.5], [0.999, 0.0, 0.999]])
    result = np.asarray(cut_out(u, jnp.ones((2, 20, 20, 1)), 10))[..., 0]
    assert (result[0] == 0).sum() == 9 and result[0, 10, 10] == 0
    assert (result[1] == 0).sum() == 5 * 6  # a side of 10 whose centre is at the upper right corner


def test_the_square_leaves_most_of_an_image_of_any_size():
    assert [largest_cutout(size) for size in (32, 96, 224)] == [16, 32, 75]  # the settings of the authors
    assert all(1 <= largest_cutout(size) <= size / 2 for size in range(2, 225))


@pytest.mark.long
def test_an_image_does_not_depend_on_its_batch():
    key, index = jax.random.key(0), jnp.arange(4)
    whole = augment(key, jnp.asarray(IMAGES), index, 1, size=16)
    part = augment(key, jnp.asarray(IMAGES[2:]), index[2:], 1, size=16)
    np.testing.assert_allclose(whole[2:], part, atol=1e-6)
    assert np.abs(np.asarray(augment(key, jnp.asarray(IMAGES), index, 0, size=16)) - np.asarray(whole)).max() > 0.1
