"""Colour adjustments of image batches, with different parameters for each image.

Images are [b, h, w, c], uint8 or float in [0, 1]. Results are float32 in [0, 1]. The operations are defined as
torchvision defines them for float images.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from clustering_jax.augment.resample import to_unit
from clustering_jax.typing import Array, Float, Int

LUMA = (0.2989, 0.587, 0.114)


def grayscale(images: Array) -> Float[Array, "b h w 1"]:
    """Luma if there are three channels, otherwise the mean of the channels."""
    x = to_unit(images)
    if x.shape[-1] != 3:
        return x.mean(-1, keepdims=True)
    red, green, blue = (weight * x[..., i : i + 1] for i, weight in enumerate(LUMA))
    return red + green + blue


def adjust_hue(images: Array, shift: Float[Array, " b"]) -> Float[Array, "b h w 3"]:
    """Rotates the hue (HSV) by `shift`, in turns in [-1/2, 1/2]. Saturation and value do not change."""
    x = to_unit(images)
    red, green, blue = (x[..., i] for i in range(3))
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    per = 1 / jnp.where(chroma > 0, chroma, 1)
    hue = jnp.where(value == green, 2 + (blue - red) * per, 4 + (red - green) * per)
    hue = jnp.where(value == red, (green - blue) * per, hue) + 6 * shift[:, None, None]
    sixths = [hue + n - 6 * jnp.floor((hue + n) / 6) for n in (5, 3, 1)]
    rotated = [value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1) for k in sixths]
    # With a shift of 0 the image is bitwise unchanged.
    return jnp.where(shift[:, None, None, None] == 0, x, jnp.clip(jnp.stack(rotated, axis=-1), 0, 1))


def adjust_colors(
    images: Array, factors: Float[Array, "b 3"], shift: Float[Array, " b"], order: Int[Array, "b n"]
) -> Float[Array, "b h w c"]:
    """Adjusts brightness, contrast, saturation and hue, in an order of its own for each image.

    Each operation clips its result to [0, 1]. The first three have one formula, ``clip(f x + (1 - f) reference)``, so
    one blend computes any of them. The hue is more expensive. It is computed once, between the blends that come before
    it and the blends that come after it.

    Args:
      images: [b, h, w, c].
      factors: [b, 3] factors of brightness, contrast and saturation; 1 does not change the image.
      shift: [b] rotation of the hue, in turns.
      order: int [b, 4] position of each of the four operations, a permutation of 0..3 in each row. With [b, 3] it is a
        permutation of 0..2, and the hue does not change.
    """
    x = to_unit(images)
    blends, turn = order[:, :3], order[:, 3:]
    if order.shape[1] == 3:
        return _blends(x, factors, blends, 0)
    x = _blends(x, factors, jnp.where(blends < turn, blends, -1), 0)
    x = adjust_hue(x, shift)
    return _blends(x, factors, jnp.where(blends > turn, blends, -1), 1)


def _blends(x: Array, factors: Array, places: Array, first: int) -> Array:
    """Applies the blends at the positions `first` to ``first + 2``. A blend at another position is left out."""
    # A loop, because XLA's CPU backend would fuse unrolled blends and compute each again in all the later ones.
    return lax.fori_loop(first, first + 3, lambda place, x: _blend(x, factors, places == place), x)


def _blend(x: Array, factors: Array, which: Array) -> Array:
    """One blend with a reference: 0 (brightness), the image's mean grey (contrast) or the pixel's grey (saturation)."""
    factor = jnp.where(which, factors, 0).sum(1) + ~which.any(1)
    factor, contrast, saturation = (v[:, None, None, None] for v in (factor, which[:, 1], which[:, 2]))
    gray = grayscale(x)
    mean = gray.mean((1, 2, 3), keepdims=True)
    reference = jnp.where(contrast, mean, jnp.where(saturation, gray, 0))
    return jnp.clip(factor * x + (1 - factor) * reference, 0, 1)
