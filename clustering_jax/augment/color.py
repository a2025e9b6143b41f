"""Colour adjustments of image batches, each example with numbers of its own.

Images are ``[b, h, w, c]``, uint8 or float in [0, 1]; results are float32 in [0, 1]. Definitions are those of
torchvision on float images.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from clustering_jax.augment.resample import to_unit
from clustering_jax.typing import Array, Float, Int

LUMA = (0.2989, 0.587, 0.114)


def grayscale(images: Array) -> Float[Array, "b h w 1"]:
    """Luma of three channels; else the channels' mean."""
    x = to_unit(images)
    if x.shape[-1] != 3:
        return x.mean(-1, keepdims=True)
    red, green, blue = (weight * x[..., i : i + 1] for i, weight in enumerate(LUMA))
    return red + green + blue


def adjust_hue(images: Array, shift: Float[Array, " b"]) -> Float[Array, "b h w 3"]:
    """Hue (HSV) turned by `shift`, in turns of [-1/2, 1/2]; saturation and value are kept."""
    x = to_unit(images)
    red, green, blue = (x[..., i] for i in range(3))
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    per = 1 / jnp.where(chroma > 0, chroma, 1)
    hue = jnp.where(value == green, 2 + (blue - red) * per, 4 + (red - green) * per)
    hue = jnp.where(value == red, (green - blue) * per, hue) + 6 * shift[:, None, None]
    sixths = [hue + n - 6 * jnp.floor((hue + n) / 6) for n in (5, 3, 1)]
    turned = [value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1) for k in sixths]
    # Unturned images come back bit for bit.
    return jnp.where(shift[:, None, None, None] == 0, x, jnp.clip(jnp.stack(turned, axis=-1), 0, 1))


def adjust_colors(
    images: Array, factors: Float[Array, "b 3"], shift: Float[Array, " b"], order: Int[Array, "b n"]
) -> Float[Array, "b h w c"]:
    """Brightness, contrast, saturation (by `factors`) and hue (by `shift`), clipped to [0, 1] after each.

    order: the place of each of the four, a permutation of 0..3 in each row; n = 3: of 0..2, there is no hue.

    The first three are one formula, ``clip(f x + (1 - f) ref)``, so that one slot serves any of them and is
    cheap; hue is not, and is computed once, between the blends that come before it and those after it.
    """
    x = to_unit(images)
    blends, turn = order[:, :3], order[:, 3:]
    if order.shape[1] == 3:
        return _blends(x, factors, blends, 0)
    x = _blends(x, factors, jnp.where(blends < turn, blends, -1), 0)
    x = adjust_hue(x, shift)
    return _blends(x, factors, jnp.where(blends > turn, blends, -1), 1)


def _blends(x: Array, factors: Array, places: Array, first: int) -> Array:
    """Three slots, `first` the place of the first of them; an operation at a place outside is not done."""
    # A loop: XLA's CPU backend would fuse unrolled slots, that is, compute each again in all that follow.
    return lax.fori_loop(first, first + 3, lambda place, x: _blend(x, factors, places == place), x)


def _blend(x: Array, factors: Array, which: Array) -> Array:
    """``ref`` is 0 (brightness), the image's mean grey (contrast) or the pixel's grey (saturation)."""
    factor = jnp.where(which, factors, 0).sum(1) + ~which.any(1)
    factor, contrast, saturation = (v[:, None, None, None] for v in (factor, which[:, 1], which[:, 2]))
    gray = grayscale(x)
    mean = gray.mean((1, 2, 3), keepdims=True)
    reference = jnp.where(contrast, mean, jnp.where(saturation, gray, 0))
    return jnp.clip(factor * x + (1 - factor) * reference, 0, 1)
