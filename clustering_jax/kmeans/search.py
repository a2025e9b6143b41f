"""The search of k-means: Lloyd's iterations of several restarts side by side."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.kmeans.nearest import nearest
from clustering_jax.kmeans.row_blocks import Rows, half_squares, label_sums
from clustering_jax.losses import normalize
from clustering_jax.typing import Array

Count = Array | None
# Centroids in one matrix product: enough for full speed, and few enough that the result stays in cache.
_COLUMNS = 256


class Search(NamedTuple):
    """State of the search. Each slot runs one restart; when a restart ends, its slot takes the next one.

    Args:
      centers: [slots, k, d] current centroids.
      restart: int [slots] number of the restart in each slot; the number of restarts or more if the slot is idle.
      steps: int [slots] iterations so far.
      started: number of restarts that have begun.
      ended: [restarts, k, d] centroids of the restarts that have ended.
      iterations: int [restarts] their iterations.
      best: number of the one with the largest fit.
      fit: that fit.
    """

    centers: Array
    restart: Array
    steps: Array
    started: Array
    ended: Array
    iterations: Array
    best: Array
    fit: Array


def search(rows: Rows, initial: Array, max_iter: int, limit: Array, count: Count = None) -> Search:
    """All restarts, as they ended. `initial`, int [restarts, k], are the rows to start from."""
    restarts, k = initial.shape
    slots = max(1, min(restarts, _COLUMNS // k))

    def step(now: Search) -> Search:
        centers, fit = iterate(rows, now.centers, count)
        moved, steps = jnp.sum((centers - now.centers) ** 2, (1, 2)), now.steps + 1
        done = (now.restart < restarts) & ((moved <= limit) | (steps >= max_iter))
        top = jnp.argmax(jnp.where(done, fit, -jnp.inf))
        better = done[top] & (fit[top] > now.fit)
        # A restart that has not ended is written to no place.
        place = jnp.where(done, now.restart, restarts)
        ended = now.ended.at[place].set(centers, mode="drop")
        iterations = now.iterations.at[place].set(steps, mode="drop")
        best, best_fit = jnp.where(better, now.restart[top], now.best), jnp.where(better, fit[top], now.fit)
        restart = jnp.where(done, now.started + jnp.cumsum(done, dtype=jnp.int32) - 1, now.restart)
        fresh = rows.take(initial[jnp.minimum(restart, restarts - 1)])
        centers = jnp.where(done[:, None, None], fresh, centers)
        started = now.started + jnp.sum(done, dtype=jnp.int32)
        return Search(centers, restart, jnp.where(done, 0, steps), started, ended, iterations, best, best_fit)

    first, zero = rows.take(initial[:slots]), jnp.int32(0)
    none = jnp.full((), -jnp.inf, first.dtype)
    ended, iterations = jnp.zeros((restarts, *first.shape[1:]), first.dtype), jnp.zeros(restarts, jnp.int32)
    begun = jnp.arange(slots, dtype=jnp.int32), jnp.zeros(slots, jnp.int32), jnp.int32(slots)
    start = Search(first, *begun, ended, iterations, zero, none)
    return lax.while_loop(lambda now: jnp.any(now.restart < restarts), step, start)


def iterate(
    rows: Rows, centers: Array, count: Count = None, nearest: Callable[..., Array] = nearest
) -> tuple[Array, Array]:
    """One iteration: the next centers [slots, k, d], and their fit [slots].

    The fit is the sum of squares (or of cosines) that the centroids explain. The larger it is, the smaller the inertia.
    """
    k = centers.shape[1]

    def step(carry: tuple[Array, Array], rows: Array, index: Array) -> tuple[tuple[Array, Array], None]:
        # Rows with index -1 are left out: label k is no cluster.
        labels = jnp.where(index >= 0, nearest(centers, rows, count), k)
        sums, counts = label_sums(labels, rows, k)
        return (carry[0] + sums, carry[1] + counts), None

    zero = jnp.zeros_like(centers), jnp.zeros_like(centers[..., 0])
    (sums, counts), _ = rows.fold(step, zero)
    means = jax.vmap(normalize)(sums) if rows.scale is not None else sums / jnp.maximum(counts, 1)[..., None]
    fit, empty = jnp.sum(sums * means, (1, 2)), counts == 0
    empty = empty if count is None else empty & (jnp.arange(k) < count)
    refilled = partial(_refilled, rows, centers, count, empty)
    return lax.cond(jnp.any(empty), refilled, lambda means: means, means), fit


def _refilled(rows: Rows, centers: Array, count: Count, empty: Array, means: Array) -> Array:
    """`means`, with each empty cluster moved to one of the rows that are farthest from their centroids."""

    def step(carry: tuple[Array, Array], rows: Array, index: Array) -> tuple[tuple[Array, Array], None]:
        squares = jnp.sum(rows**2, 1) + 2 * jnp.min(half_squares(centers, rows, count), 1)
        both = jnp.concatenate([carry[0], jnp.where(index >= 0, squares, -jnp.inf)], 1)
        indices = jnp.concatenate([carry[1], jnp.broadcast_to(index, squares.shape)], 1)
        top, at = lax.top_k(both, empty.shape[1])
        return (top, jnp.take_along_axis(indices, at, 1)), None

    start = jnp.full(empty.shape, -jnp.inf, centers.dtype), jnp.zeros(empty.shape, jnp.int32)
    (_, farthest), _ = rows.fold(step, start)
    rank = jnp.maximum(jnp.cumsum(empty, axis=1) - 1, 0)
    return jnp.where(empty[..., None], rows.take(jnp.take_along_axis(farthest, rank, 1)), means)
