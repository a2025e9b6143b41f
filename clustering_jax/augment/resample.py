"""Resampling of image batches: crop and resize, Gaussian blur, affine maps, in fixed shapes.

Images are ``[b, h, w, c]``, uint8 or float in [0, 1]; results are float32 in [0, 1]. Examples do not meet,
so that the batch may be split over devices.
"""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
import numpy as np

from clustering_jax.typing import Array, Float

# TPUs and GPUs would round the factors to bfloat16 or TF32, which is visible at 8 bits a channel.
_einsum = partial(jnp.einsum, precision="highest")


def to_unit(images: Array) -> Float[Array, "b h w c"]:
    """float32 in [0, 1] from uint8 in [0, 255] or floats already in [0, 1]; ValueError for anything else."""
    if images.ndim != 4:
        raise ValueError(f"images must be [b, h, w, c], not {images.shape}")
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images must be uint8 or float in [0, 1], not {images.dtype}")
    return images.astype(jnp.float32)


def bilinear_weights(start: Array | int, length: Array | int, num_in: int, num_out: int) -> Float[Array, "... out in"]:
    """Matrices that resample ``[start, start + length)`` of an axis of `num_in` pixels to `num_out` pixels.

    A triangle filter, widened by the shrinking factor (antialiased), cut at the ends of the interval and
    normalised to row sum 1, as in PIL's ``crop(...).resize(..., BILINEAR)``. `start`, `length`: equal shapes.
    """
    begin, extent = (jnp.asarray(v, jnp.float32)[..., None, None] for v in (start, length))
    scale = extent / num_out
    centre = begin + (jnp.arange(num_out)[:, None] + 0.5) * scale
    pixel = jnp.arange(num_in) + 0.5
    weights = jnp.maximum(0, 1 - jnp.abs(pixel - centre) / jnp.maximum(scale, 1))
    weights = jnp.where((pixel > begin) & (pixel < begin + extent), weights, 0)
    return weights / weights.sum(-1, keepdims=True)


def crop_resize(images: Array, boxes: Float[Array, "b 4"], size: int) -> Float[Array, "b size size c"]:
    """Cuts `boxes` (top, left, height, width; pixels, inside the image), each resized to `size` squared."""
    height, width = images.shape[1:3]
    rows = bilinear_weights(boxes[:, 0], boxes[:, 2], height, size)
    columns = bilinear_weights(boxes[:, 1], boxes[:, 3], width, size)
    return _separable(to_unit(images), rows, columns)


def resize(images: Array, size: int) -> Float[Array, "b size size c"]:
    """Whole images to `size` squared, antialiased bilinear as PIL's; the aspect ratio is not kept."""
    height, width = images.shape[1:3]
    x = to_unit(images)
    if (height, width) == (size, size):
        return x
    rows, columns = bilinear_weights(0, height, height, size), bilinear_weights(0, width, width, size)
    return _separable(x, rows[None], columns[None])


def blur(images: Array, sigma: Float[Array, " b"], kernel: int = 23) -> Float[Array, "b h w c"]:
    """Gaussian blur with one `sigma` (pixels, > 0) per example and reflected edges, as torchvision's.

    `kernel`: odd number of taps, cut to the largest odd number that one reflection serves (2 * side - 1).
    """
    height, width = images.shape[1:3]
    rows, columns = _blur_weights(sigma, kernel, height), _blur_weights(sigma, kernel, width)
    return _separable(to_unit(images), rows, columns)


def affine(images: Array, matrices: Float[Array, "b 2 3"]) -> Float[Array, "b h w c"]:
    """Bilinear affine warp, zero outside the image.

    matrices: output to input, ``(x_in, y_in) = matrix @ (x_out, y_out, 1)``, in pixels from the image's
    centre, x to the right and y down.
    """
    x = to_unit(images)
    height, width = x.shape[1:3]
    grid_y, grid_x = jnp.mgrid[:height, :width].reshape(2, -1).astype(jnp.float32)
    grid = jnp.stack([grid_x - (width - 1) / 2, grid_y - (height - 1) / 2, jnp.ones_like(grid_x)])
    source = _einsum("bij,jp->ibp", matrices, grid)
    source_x, source_y = source[0] + (width - 1) / 2, source[1] + (height - 1) / 2
    left, top = jnp.floor(source_x), jnp.floor(source_y)
    corners = [(left + i, top + j) for j in (0, 1) for i in (0, 1)]
    # Gathers, not products: a pixel has four neighbours, and dense weights would need side times the work.
    out = sum(_weighted_pixels(x, u, v, source_x, source_y) for u, v in corners)
    return jnp.clip(out, 0, 1).reshape(x.shape)


def _weighted_pixels(x: Array, column: Array, row: Array, source_x: Array, source_y: Array) -> Array:
    """``[b, p, c]``: pixel (row, column) ``[b, p]`` times its bilinear weight; zero outside the image."""
    b, height, width, c = x.shape
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    weight = jnp.where(inside, (1 - jnp.abs(source_x - column)) * (1 - jnp.abs(source_y - row)), 0)
    place = jnp.where(inside, row * width + column, 0).astype(jnp.int32)[..., None]
    return weight[..., None] * jnp.take_along_axis(x.reshape(b, -1, c), place, axis=1)


def _separable(x: Array, rows: Array, columns: Array) -> Array:
    """Weights ``[b or 1, y, h]`` and ``[b or 1, x, w]`` applied to ``[b, h, w, c]``; rounding is cut off."""
    rows, columns = (jnp.broadcast_to(m, (x.shape[0], *m.shape[1:])) for m in (rows, columns))
    # Rows first: no transposition of the source, which is the largest array when images shrink.
    x = _einsum("byh,bhwc->bywc", rows, x)
    return jnp.clip(_einsum("bxw,bywc->byxc", columns, x), 0, 1)


def _blur_weights(sigma: Array, kernel: int, side: int) -> Array:
    """``[b, side, side]``: taps ``exp(-d^2 / 2 sigma^2)``, spread by a constant with the reflections."""
    reach = min(kernel // 2, side - 1)
    taps = jnp.exp(-0.5 * (jnp.arange(reach + 1) / sigma[:, None]) ** 2)
    weights = _einsum("bt,tij->bij", taps, _reflected_taps(reach, side))
    return weights / weights.sum(-1, keepdims=True)


def _reflected_taps(reach: int, side: int) -> np.ndarray:
    """``[reach + 1, side, side]``: how often output i meets input j at distance t, edges mirrored."""
    counts = np.zeros((reach + 1, side, side), np.float32)
    out = np.arange(side)
    for offset in range(-reach, reach + 1):
        source = np.abs(out + offset)
        source = np.where(source >= side, 2 * (side - 1) - source, source)
        counts[abs(offset), out, source] += 1
    return counts
