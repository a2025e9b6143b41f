"""Strong augmentation for self-labelling: a flip, four random operations of fourteen, and a cut-out square.

The operations are those of RandAugment (Cubuk et al., NeurIPS workshops 2020) in the ranges that SCAN uses
(Van Gansbeke et al., ECCV 2020). They follow Pillow on whole levels 0 to 255; only the five geometric ones interpolate
bilinearly. All random numbers come from the key, the index and the view, so the result does not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from clustering_jax.augment.pipeline import horizontal_flip, uniforms
from clustering_jax.augment.resample import affine, resize, to_unit
from clustering_jax.typing import Array, Float

ROUNDS = 4
# Pillow's weights of red, green and blue, in parts of 2^16.
_LUMA = np.array([19595, 38470, 7471])
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13


def strong_augment(
    key: Array, images: Array, index: Array, view: Array | int, size: int, *, rounds: int = ROUNDS, cutout: int = 0
) -> Float[Array, "b size size c"]:
    """Strongly augmented images, float32 in [0, 1].

    Args:
      key: random key that holds the seed and the epoch.
      images: [b, h, w, c] uint8, or float in [0, 1].
      index: int [b], the examples' numbers in the data set.
      view: number of the view.
      size: side of the output in pixels.
      rounds: operations drawn for each image, with replacement.
      cutout: largest side of the square that is set to 0, in pixels; the side is uniform in 1, ..., `cutout`. 0 is
        `largest_cutout(size)`.

    Returns:
      [b, size, size, c].
    """
    u = uniforms(key, index, view, 2 * rounds + 4)
    x = horizontal_flip(u[:, :1], resize(images, size))

    def one_round(i: Array, x: Array) -> Array:
        choice, magnitude = (jax.lax.dynamic_index_in_dim(u, 4 + 2 * i + j, axis=1, keepdims=False) for j in (0, 1))
        return random_operation((choice * len(NAMES)).astype(jnp.int32), magnitude, x)

    x = jax.lax.fori_loop(0, rounds, one_round, x)
    return cut_out(u[:, 1:4], x, cutout or largest_cutout(size))


def largest_cutout(size: int) -> int:
    """SCAN's 16, 32 and 75 pixels at 32, 96 and 224: a third of the side, or up to 16 pixels half of a smaller one."""
    return max(round(size / 3), min(size // 2, 16))


def random_operation(choice: Array, magnitude: Array, images: Array) -> Float[Array, "b h w c"]:
    """Operation number `choice` of `NAMES` at `magnitude` in [0, 1), each [b], applied image by image."""
    levels = jnp.round(255 * to_unit(images))
    changed = levels
    for number, operation in enumerate(OPERATIONS.values()):
        changed = jnp.where((choice == number)[:, None, None, None], operation(magnitude, levels), changed)
    warped = affine(levels / 255, warp_matrices(choice, magnitude, *images.shape[1:3]))
    return jnp.where((choice >= len(OPERATIONS))[:, None, None, None], warped, changed / 255)


def cut_out(u: Float[Array, "b 3"], images: Array, largest: int) -> Array:
    """Sets a square to 0, centred anywhere in the image and cut off at its border."""
    height, width = images.shape[1:3]
    side = jnp.floor(u[:, 0] * largest) + 1
    top, left = jnp.floor(u[:, 1] * height) - side // 2, jnp.floor(u[:, 2] * width) - side // 2
    rows, columns = jnp.arange(height), jnp.arange(width)
    inside_rows = (rows >= top[:, None]) & (rows < (top + side)[:, None])
    inside_columns = (columns >= left[:, None]) & (columns < (left + side)[:, None])
    return jnp.where((inside_rows[:, :, None] & inside_columns[:, None])[..., None], 0, images)


def _identity(magnitude: Array, x: Array) -> Array:
    return x


def _autocontrast(magnitude: Array, x: Array) -> Array:
    """Stretches each channel to the range 0 to 255."""
    low, high = x.min((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
    scale = 255 / jnp.where(high > low, high - low, 1)
    # Added so that rounding errors do not take a product such as 3 * 85 below its whole number.
    return jnp.where(high > low, jnp.clip(jnp.floor((x - low) * scale + 1e-3), 0, 255), x)


def _equalize(magnitude: Array, x: Array) -> Array:
    """Equalises the histogram of each channel. Ranks from sorting replace 256 bins for each image and channel."""
    b, h, w, c = x.shape
    rows = x.transpose(0, 3, 1, 2).reshape(b * c, h * w)
    ordered = jnp.sort(rows, axis=1)
    below = jax.vmap(lambda values, pixels: jnp.searchsorted(values, pixels, side="left", method="sort"))(ordered, rows)
    step = (h * w - jnp.sum(ordered == ordered[:, -1:], axis=1, keepdims=True)) // 255
    levels = jnp.where(step > 0, jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255), rows)
    return levels.reshape(b, c, h, w).transpose(0, 2, 3, 1).astype(x.dtype)


def _solarize(magnitude: Array, x: Array) -> Array:
    threshold = (256 * magnitude)[:, None, None, None]
    return jnp.where(x < threshold, x, 255 - x)


def _posterize(magnitude: Array, x: Array) -> Array:
    """Keeps the 4 to 8 highest bits."""
    step = 2.0 ** (4 - jnp.floor(5 * magnitude))[:, None, None, None]
    return jnp.floor(x / step) * step


def _gray(x: Array) -> Array:
    if x.shape[-1] != 3:
        return x.mean(-1, keepdims=True)
    return jnp.floor((x @ _LUMA.astype(np.float32) + 2**15) / 2**16)[..., None]


def _blend(reference: Array, magnitude: Array, x: Array) -> Array:
    """Blends `reference` and the image. The weight of the image is 0.05 to 0.95."""
    share = (0.05 + 0.9 * magnitude)[:, None, None, None]
    return jnp.floor(reference + share * (x - reference) + 1e-3)


def _color(magnitude: Array, x: Array) -> Array:
    return _blend(_gray(x), magnitude, x)


def _contrast(magnitude: Array, x: Array) -> Array:
    return _blend(jnp.floor(_gray(x).mean((1, 2, 3), keepdims=True) + 0.5), magnitude, x)


def _brightness(magnitude: Array, x: Array) -> Array:
    return _blend(jnp.zeros_like(x), magnitude, x)


def _sharpness(magnitude: Array, x: Array) -> Array:
    """Blends with the image smoothed over 3 x 3 pixels. The border is not smoothed."""
    height, width = x.shape[1:3]
    if height < 3 or width < 3:
        return x
    shifted = [
        weight * x[:, row : height - 2 + row, column : width - 2 + column]
        for row, weights in enumerate(_SMOOTH)
        for column, weight in enumerate(weights)
    ]
    smooth = x.at[:, 1:-1, 1:-1].set(jnp.floor(sum(shifted) + 0.5))
    return _blend(smooth, magnitude, x)


OPERATIONS: dict[str, Callable[[Array, Array], Array]] = {
    "identity": _identity,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "solarize": _solarize,
    "posterize": _posterize,
    "color": _color,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
}
# All of these share one interpolation. Their numbers come after those of `OPERATIONS`.
WARPS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
NAMES = (*OPERATIONS, *WARPS)


def warp_matrices(choice: Array, magnitude: Array, height: int, width: int) -> Float[Array, "b 2 3"]:
    """Matrices for `affine`, from output to input. Operations that are not in `WARPS` get the identity."""
    signed = 2 * magnitude - 1

    def at(name: str, amount: Array) -> Array:
        return jnp.where(choice == NAMES.index(name), amount, 0.0)

    angle = at("rotate", np.deg2rad(30) * signed)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    right, down = at("translate_x", 0.1 * width * signed), at("translate_y", 0.1 * height * signed)
    rows = (
        (cos, -sin + at("shear_x", 0.1 * signed), right),
        (sin + at("shear_y", 0.1 * signed), cos, down),
    )
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=1)
