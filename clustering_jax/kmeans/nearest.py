"""The nearest centroid of each row: fast from expanded squares, or exact where those cancel."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import lax

from clustering_jax.kmeans.row_blocks import half_squares
from clustering_jax.typing import Array

# Rows from which the centre of the data is estimated where a few rows are far away.
_SAMPLE = 1024
# The mean is replaced if it lies so many times farther from the median than half of the rows do.
_FAR = 4


def centre(x: Array) -> tuple[Array, Array]:
    """Estimates the centre and the spread of rows, of which a few may be far away.

    The mean is the centre of most data. A few rows that are far away pull it to a place where there are no rows; the
    squared distances from there are so large that float32 rounds the differences between the others away.

    Args:
      x: [n, d] rows.

    Returns:
      ``(centre [d], spread [])``: the mean and infinity, or where the mean is far from half of the rows, the median of
      the columns and a variance of the columns that the far rows do not enter.
    """
    dtype = jnp.result_type(jnp.float32, x)
    mean = lax.optimization_barrier(jnp.mean(x, axis=0, dtype=dtype))
    sample = x[:: max(1, len(x) // _SAMPLE)].astype(dtype)
    median = jnp.median(sample, axis=0)
    squares = jnp.median(jnp.sum((sample - median) ** 2, axis=1))
    far = (squares > 0) & (jnp.sum((mean - median) ** 2) > _FAR**2 * squares)
    return jnp.where(far, median, mean), jnp.where(far, 4 * squares / x.shape[1], jnp.inf)


def nearest(centers: Array, rows: Array, count: Array | None) -> Array:
    """Index of the nearest center in each slot, the first in a tie: [slots, k, d] and [b, d] to int32 [slots, b]."""
    halves = half_squares(centers, rows, count)
    # For large k, `jnp.argmin` takes three times as long on CPU.
    clusters = jnp.arange(halves.shape[1], dtype=jnp.int32)[:, None]
    is_nearest = halves <= lax.optimization_barrier(jnp.min(halves, axis=1, keepdims=True))
    return jnp.min(jnp.where(is_nearest, clusters, halves.shape[1] - 1), axis=1)


def nearest_exactly(centers: Array, rows: Array, count: Array | None) -> tuple[Array, Array]:
    """Index of the nearest center, and its squared distance, from squared differences.

    Expanded squares and a bound on their rounding leave one or two centers for nearly every row, which are compared by
    squared differences. If they leave more for a row, the whole block is compared with all centers.

    Args:
      centers: [k, d].
      rows: [b, d].
      count: number of centers to use, or None for all.

    Returns:
      ``(labels int32 [b], squared distances [b])``; in a tie the first center is taken.
    """
    k = len(centers)
    shift = jnp.median(centers, axis=0)
    lower, upper = _bounds(centers - shift, rows - shift, count)
    possible = lower <= lax.optimization_barrier(jnp.min(upper, axis=0, keepdims=True))
    clusters = jnp.arange(k, dtype=jnp.int32)[:, None]
    first = jnp.min(jnp.where(possible, clusters, k - 1), axis=0)
    last = jnp.max(jnp.where(possible, clusters, 0), axis=0)

    def of_two() -> tuple[Array, Array]:
        one, other = _squares(centers[first], rows), _squares(centers[last], rows)
        return jnp.where(one <= other, first, last), jnp.minimum(one, other)

    def of_all() -> tuple[Array, Array]:
        def step(best: tuple[Array, Array], each: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
            number, center = each
            squares = _squares(center, rows)
            squares = squares if count is None else jnp.where(number < count, squares, jnp.inf)
            return (jnp.where(squares < best[1], number, best[0]), jnp.minimum(squares, best[1])), None

        start = jnp.zeros(len(rows), jnp.int32), jnp.full(len(rows), jnp.inf, rows.dtype)
        return lax.scan(step, start, (clusters[:, 0], centers))[0]

    return lax.cond(jnp.any(jnp.sum(possible, axis=0) > 2), of_all, of_two)


def _squares(centers: Array, rows: Array) -> Array:
    return jnp.sum((rows - centers) ** 2, axis=-1)


def _bounds(centers: Array, rows: Array, count: Array | None) -> tuple[Array, Array]:
    """Lower and upper bounds [k, b] on half the squared distance, minus half the squared norm of the row."""
    halves = half_squares(centers, rows, count)
    norms, lengths = jnp.sqrt(jnp.sum(centers**2, axis=1))[:, None], jnp.sqrt(jnp.sum(rows**2, axis=1))
    # Sums of d terms: their errors add up like a random walk at most, in whatever order.
    unit = 8 * float(jnp.finfo(rows.dtype).eps) * (4 + math.sqrt(rows.shape[1]))
    slack = unit * norms * (norms + lengths)
    return halves - slack, halves + slack
