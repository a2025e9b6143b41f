"""Initialisation of k-means by greedy k-means++.

Each initial centroid is the best of a few candidate rows. The candidates are drawn with a probability proportional to
their squared distance to the centroids that are already chosen.

References:
  Arthur and Vassilvitskii, k-means++: the advantages of careful seeding, SODA 2007.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax, random

from clustering_jax.kmeans.row_blocks import Rows, half_squares
from clustering_jax.typing import Array

# Limit on the numbers in memory for restarts that are initialised together.
_NUMBERS = 1 << 24


def initial_rows(key: Array, rows: Rows, k: int, restarts: int) -> Array:
    """Row numbers of the initial centroids. Restart i depends only on `key` and i.

    Restarts are computed in groups of equal size that fit in memory.

    Args:
      key: random key.
      rows: k rows or more.
      k: number of clusters.
      restarts: number of restarts.

    Returns:
      int32 [restarts, k].
    """
    groups = min(restarts, -(-restarts * len(rows.x) * _trials(k) // _NUMBERS))
    keys = jax.vmap(partial(random.fold_in, key))(jnp.arange(-(-restarts // groups) * groups))
    of_group = jax.vmap(lambda key: _initial_rows(key, rows, k))
    return lax.map(of_group, keys.reshape(groups, -1, *keys.shape[1:])).reshape(-1, k)[:restarts]


def _initial_rows(key: Array, rows: Rows, k: int) -> Array:
    """Row numbers of the initial centroids of one restart, int32 [k]."""

    def step(points: Array, cost: Array, rows: Array, index: Array, closest: Array) -> tuple[Array, Array]:
        squares = jnp.sum(rows**2, 1) + 2 * half_squares(points, rows)
        closer = jnp.where(index >= 0, jnp.clip(squares, 0, closest), 0)
        return cost + jnp.sum(closer, 1), closer

    def add(carry: tuple[Array, Array], uniform: Array) -> tuple[tuple[Array, Array], Array]:
        weights, closest = carry
        points = rows.take(candidates := _draw(uniform, rows, weights))
        cost, closer = rows.fold(partial(step, points), jnp.zeros(len(points), points.dtype), closest)
        best = jnp.argmin(cost)
        return (closer[:, best], closer[:, best]), candidates[best]

    counts = rows.fold(lambda carry, _, index: (carry, index >= 0), 0)[1].astype(rows.shift.dtype)
    uniforms = random.uniform(key, (k, 2, _trials(k)), counts.dtype)
    # The first row has a single candidate. The best of several would always be close to the mean.
    uniforms = uniforms.at[0].set(uniforms[0, :, :1])
    return lax.scan(add, (counts, jnp.full_like(counts, jnp.inf)), uniforms)[1]


def _trials(k: int) -> int:
    """Number of candidates for each initial centroid, as Arthur and Vassilvitskii recommend."""
    return 2 + int(math.log(k))


def _draw(uniforms: Array, rows: Rows, weights: Array) -> Array:
    """Draws rows with probabilities proportional to their weights.

    It draws the block first and then a row inside the block, because a cumulative sum over all rows is slow and
    inaccurate in float32.

    Args:
      uniforms: [2, number of draws] uniform numbers in [0, 1).
      rows: rows to draw from.
      weights: [blocks, size] weight of each row.

    Returns:
      int32 [number of draws].
    """
    outer, inner = uniforms
    block = _draw_column(outer, jnp.broadcast_to(jnp.sum(weights, 1), (len(outer), rows.blocks)))
    return rows.first(block) + _draw_column(inner, weights[block])


def _draw_column(uniform: Array, weights: Array) -> Array:
    """Draws a column for each row of weights: [m] and [m, c] to [m]. If all weights are 0 it is the last column."""
    sums = jnp.cumsum(weights, axis=1)
    passed = jnp.sum(sums <= uniform[:, None] * sums[:, -1:], axis=1)
    return jnp.minimum(passed, weights.shape[1] - 1)
