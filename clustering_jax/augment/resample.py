"""Resampling of image batches: crop and resize, Gaussian blur, affine maps, in fixed shapes.

Images are [b, h, w, c], uint8 or float in [0, 1]. Results are float32 in [0, 1]. Each image is processed on its own, so
the batch can be split over devices.
"""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
import numpy as np

from clustering_jax.typing import Array, Float

# By default TPUs and GPUs round the factors to bfloat16 or TF32. The error is visible at 8 bits per channel.
_einsum = partial(jnp.einsum, precision="highest")


def to_unit(images: Array) -> Float[Array, "b h w c"]:
    """Converts images to float32 in [0, 1].

    Args:
      images: [b, h, w, c], uint8, or float in [0, 1].

    Raises:
      ValueError: another rank or dtype.
    """
    if images.ndim != 4:
        raise ValueError(f"images must be [b, h, w, c], not {images.shape}")
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images must be uint8 or float in [0, 1], not {images.dtype}")
    return images.astype(jnp.float32)


def bilinear_weights(start: Array | int, length: Array | int, num_in: int, num_out: int) -> Float[Array, "... out in"]:
    """Matrices that resample the interval [start, start + length) of an axis to `num_out` pixels.

    The filter is a triangle, as in PIL's ``crop(...).resize(..., BILINEAR)``. It is widened if the interval shrinks
    (antialiasing), cut off at the ends of the interval, and normalised to row sum 1.

    Args:
      start: first pixel of the interval, any shape.
      length: length of the interval in pixels, of the same shape.
      num_in: number of pixels of the axis.
      num_out: number of pixels of the result.
    """
    begin, extent = (jnp.asarray(v, jnp.float32)[..., None, None] for v in (start, length))
    scale = extent / num_out
    centre = begin + (jnp.arange(num_out)[:, None] + 0.5) * scale
    pixel = jnp.arange(num_in) + 0.5
    weights = jnp.maximum(0, 1 - jnp.abs(pixel - centre) / jnp.maximum(scale, 1))
    weights = jnp.where((pixel > begin) & (pixel < begin + extent), weights, 0)
    return weights / weights.sum(-1, keepdims=True)


def crop_resize(images: Array, boxes: Float[Array, "b 4"], size: int) -> Float[Array, "b size size c"]:
    """Crops one box from each image and resizes it to `size` x `size` pixels.

    Args:
      images: [b, h, w, c].
      boxes: [b, 4] top, left, height and width in pixels, inside the image.
      size: side of the result in pixels.
    """
    height, width = images.shape[1:3]
    rows = bilinear_weights(boxes[:, 0], boxes[:, 2], height, size)
    columns = bilinear_weights(boxes[:, 1], boxes[:, 3], width, size)
    return _separable(to_unit(images), rows, columns)


def resize(images: Array, size: int) -> Float[Array, "b size size c"]:
    """Resizes to `size` x `size` pixels, bilinear with antialiasing as in PIL. The aspect ratio may change."""
    height, width = images.shape[1:3]
    x = to_unit(images)
    if (height, width) == (size, size):
        return x
    rows, columns = bilinear_weights(0, height, height, size), bilinear_weights(0, width, width, size)
    return _separable(x, rows[None], columns[None])


def blur(images: Array, sigma: Float[Array, " b"], kernel: int = 23) -> Float[Array, "b h w c"]:
    """Gaussian blur with reflected edges, as in torchvision.

    Args:
      images: [b, h, w, c].
      sigma: [b] standard deviation for each image in pixels, > 0.
      kernel: number of taps, odd. At most 2 * side - 1 taps are used, because the edges are reflected once.
    """
    height, width = images.shape[1:3]
    rows, columns = _blur_weights(sigma, kernel, height), _blur_weights(sigma, kernel, width)
    return _separable(to_unit(images), rows, columns)


def affine(images: Array, matrices: Float[Array, "b 2 3"]) -> Float[Array, "b h w c"]:
    """Bilinear affine warp, with zeros outside of the image.

    Args:
      images: [b, h, w, c].
      matrices: [b, 2, 3] maps from output to input, ``(x_in, y_in) = matrix @ (x_out, y_out, 1)``, in pixels from the
        image's centre; x points right and y points down.
    """
    x = to_unit(images)
    height, width = x.shape[1:3]
    grid_y, grid_x = jnp.mgrid[:height, :width].reshape(2, -1).astype(jnp.float32)
    grid = jnp.stack([grid_x - (width - 1) / 2, grid_y - (height - 1) / 2, jnp.ones_like(grid_x)])
    source = _einsum("bij,jp->ibp", matrices, grid)
    source_x, source_y = source[0] + (width - 1) / 2, source[1] + (height - 1) / 2
    left, top = jnp.floor(source_x), jnp.floor(source_y)
    corners = [(left + i, top + j) for j in (0, 1) for i in (0, 1)]
    # Gathers instead of matrix products: each pixel needs only its four neighbours.
    out = sum(_weighted_pixels(x, u, v, source_x, source_y) for u, v in corners)
    return jnp.clip(out, 0, 1).reshape(x.shape)


def _weighted_pixels(x: Array, column: Array, row: Array, source_x: Array, source_y: Array) -> Array:
    """Pixels at (row, column), each [b, p], times their bilinear weights: [b, p, c]; zero outside of the image."""
    b, height, width, c = x.shape
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    weight = jnp.where(inside, (1 - jnp.abs(source_x - column)) * (1 - jnp.abs(source_y - row)), 0)
    place = jnp.where(inside, row * width + column, 0).astype(jnp.int32)[..., None]
    return weight[..., None] * jnp.take_along_axis(x.reshape(b, -1, c), place, axis=1)


def _separable(x: Array, rows: Array, columns: Array) -> Array:
    """Applies the weights [b or 1, y, h] and [b or 1, x, w] to images [b, h, w, c] and clips the result to [0, 1]."""
    rows, columns = (jnp.broadcast_to(m, (x.shape[0], *m.shape[1:])) for m in (rows, columns))
    # Rows first, which needs no transpose of the source, the largest array if the images shrink.
    x = _einsum("byh,bhwc->bywc", rows, x)
    return jnp.clip(_einsum("bxw,bywc->byxc", columns, x), 0, 1)


def _blur_weights(sigma: Array, kernel: int, side: int) -> Array:
    """Matrices [b, side, side] of the blur along one axis: taps ``exp(-d^2 / (2 sigma^2))``, reflected edges."""
    reach = min(kernel // 2, side - 1)
    taps = jnp.exp(-0.5 * (jnp.arange(reach + 1) / sigma[:, None]) ** 2)
    weights = _einsum("bt,tij->bij", taps, _reflected_taps(reach, side))
    return weights / weights.sum(-1, keepdims=True)


def _reflected_taps(reach: int, side: int) -> np.ndarray:
    """Counts [reach + 1, side, side]: how often output i reads input j at distance t, with reflected edges."""
    counts = np.zeros((reach + 1, side, side), np.float32)
    out = np.arange(side)
    for offset in range(-reach, reach + 1):
        source = np.abs(out + offset)
        source = np.where(source >= side, 2 * (side - 1) - source, source)
        counts[abs(offset), out, source] += 1
    return counts
