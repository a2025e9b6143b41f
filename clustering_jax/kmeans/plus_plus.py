"""Where k-means starts: greedy k-means++, each seed the best of a few rows drawn by their distance to those before.

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

# Numbers that restarts side by side may hold.
_NUMBERS = 1 << 24


def seeds(key: Array, rows: Rows, k: int, restarts: int) -> Array:
    """The rows where each restart begins, int32 [restarts, k]; restart i depends on `key` and i alone.

    rows: at least k of them. Restarts are drawn in groups of equal size that fit in memory.
    """
    groups = min(restarts, -(-restarts * len(rows.x) * _trials(k) // _NUMBERS))
    keys = jax.vmap(partial(random.fold_in, key))(jnp.arange(-(-restarts // groups) * groups))
    seed = jax.vmap(lambda key: _seed(key, rows, k))
    return lax.map(seed, keys.reshape(groups, -1, *keys.shape[1:])).reshape(-1, k)[:restarts]


def _seed(key: Array, rows: Rows, k: int) -> Array:
    """k rows, int32 [k]: each the best of a few drawn by their squared distance to those before."""

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
    # The first has no choice: the best of several would always be near the mean.
    uniforms = uniforms.at[0].set(uniforms[0, :, :1])
    return lax.scan(add, (counts, jnp.full_like(counts, jnp.inf)), uniforms)[1]


def _trials(k: int) -> int:
    """As the authors advise."""
    return 2 + int(math.log(k))


def _draw(uniforms: Array, rows: Rows, weights: Array) -> Array:
    """Rows with probabilities that go with their weights: [2, number] in [0, 1), [count, size] to int32 [number].

    First the block, then the row in it: one running sum over all rows is slow, and inexact in float32.
    """
    outer, inner = uniforms
    block = _draw_column(outer, jnp.broadcast_to(jnp.sum(weights, 1), (len(outer), rows.blocks)))
    return rows.first(block) + _draw_column(inner, weights[block])


def _draw_column(uniform: Array, weights: Array) -> Array:
    """A column of each row: [m] and [m, c] to [m]; the last where all weigh nothing."""
    sums = jnp.cumsum(weights, axis=1)
    passed = jnp.sum(sums <= uniform[:, None] * sums[:, -1:], axis=1)
    return jnp.minimum(passed, weights.shape[1] - 1)
