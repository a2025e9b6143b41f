"""k-means on the device: restarts advance together, as the columns of one matrix product over blocks of rows.

Everything is one compiled program, a pure function of its arguments, and may stand inside `jax.jit`. Sharded rows
give the same result up to rounding: they stay on their devices where one block holds all (``block=len(x)``), and
are gathered on each device otherwise. Entries must be finite, and their squares too.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.kmeans.plus_plus import seeds
from clustering_jax.kmeans.row_blocks import Rows, half_squares, label_sums, unit_rows
from clustering_jax.losses import normalize
from clustering_jax.typing import Array, Float, Int

Count = Array | None
# Centres that advance together: enough for a product at full speed, few enough that its result stays in cache.
_COLUMNS = 256


class KMeans(NamedTuple):
    """The best restart: centers [k, d]; labels int32 [n], the nearest center of each row; iterations it took.

    inertia: sum over rows of the squared distance to the nearest center, or of 1 - cosine if spherical.
    """

    centers: Array
    labels: Array
    inertia: Array
    iterations: Array


def kmeans(
    key: Array,
    x: Float[Array, "n d"],
    k: int,
    *,
    restarts: int = 10,
    count: Int[Array, ""] | None = None,
    max_iter: int = 300,
    tol: float = 1e-4,
    spherical: bool = False,
    block: int = 2048,
) -> KMeans:
    """Lloyd's algorithm from greedy k-means++ seeds; of all restarts the one of least inertia.

    Restart i depends on `key` and i alone: more restarts are never worse. One ends when its centers together move
    by a square of at most `tol` times the mean variance of a column, which covers labels that stay as they are.
    A cluster that loses all rows goes to the row farthest from its center. With fewer than `k` distinct rows some
    clusters stay empty. Memory beyond `x` and the result is some numbers a row, never a second `x`.

    Args:
      key: of `jax.random`.
      x: [n, d]; half precision is computed in float32.
      k: clusters, 1 to n. restarts: at least 1. max_iter: of each restart, at least 1. tol: at least 0.
      count: 1 to k, of which one compiled program serves all: clusters from `count` on stay empty.
      spherical: rows and centers are scaled to norm 1 and compared by their cosine. A row of zeros is at distance
        1 from everything and moves no center.
      block: rows in a step, at least 1.

    Returns:
      `KMeans`, in inertia like scikit-learn's of as many restarts.

    Raises:
      ValueError: `x` is not floating [n, d] with d above 0, or a number is out of its range.

    References:
      Lloyd, Least squares quantization in PCM, IEEE Transactions on Information Theory 1982.
      Arthur and Vassilvitskii, k-means++: the advantages of careful seeding, SODA 2007; 2 + log k trials a seed.
      Dhillon and Modha, Concept decompositions for large sparse text data, Machine Learning 2001: spherical.
    """
    _check_rows("kmeans", x, block)
    if not 1 <= k <= len(x):
        raise ValueError(f"kmeans: needs 1 <= k <= n, got k = {k} for rows of shape {jnp.shape(x)}")
    if restarts < 1 or max_iter < 1:
        raise ValueError(f"kmeans: needs restarts and max_iter of 1 or more, got {restarts} and {max_iter}")
    return _kmeans(
        key, jnp.asarray(x), tol, count, k=k, restarts=restarts, max_iter=max_iter, spherical=spherical, block=block
    )


def assign(
    x: Float[Array, "n d"],
    centers: Float[Array, "k d"],
    *,
    count: Int[Array, ""] | None = None,
    spherical: bool = False,
    block: int = 2048,
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """The nearest of `centers` to each row and the distance to it, exact near 0 too.

    Args:
      x: [n, d]. centers: [k, d]. count, spherical, block: as for `kmeans`.

    Returns:
      ``(labels, distances)``: int32 [n], the first where several are nearest, and [n] >= 0: squared Euclidean, or
      1 - cosine if spherical. The distances add up to the inertia.

    Raises:
      ValueError: either is not floating [., d] with one d above 0, or there is no center.
    """
    _check_rows("assign", x, block)
    _check_rows("assign", centers, block)
    x, centers = jnp.asarray(x), jnp.asarray(centers)
    if x.shape[1] != centers.shape[1]:
        raise ValueError(f"assign: needs rows of one length, got {x.shape} and {centers.shape}")
    labels, distances, _ = _assign(x, centers, count, spherical=spherical, block=block)
    return labels, distances


@partial(jax.jit, static_argnames=("k", "restarts", "max_iter", "spherical", "block"))
def _kmeans(
    key: Array,
    x: Array,
    tol: Array,
    count: Count = None,
    *,
    k: int,
    restarts: int,
    max_iter: int,
    spherical: bool,
    block: int,
) -> KMeans:
    dtype = jnp.result_type(jnp.float32, x)
    # Centred, the expanded squares of distances lose least to rounding.
    rows = unit_rows(x, block) if spherical else Rows(x, jnp.mean(x, axis=0, dtype=dtype), None, block)
    centers, iterations = _search(rows, seeds(key, rows, k, restarts), max_iter, tol * _variance(rows), count)
    centers += rows.shift
    labels, _, inertia = _assign(x, centers, count, spherical=spherical, block=block)
    return KMeans(centers, labels, inertia, iterations)


@partial(jax.jit, static_argnames=("spherical", "block"))
def _assign(x: Array, centers: Array, count: Count, *, spherical: bool, block: int) -> tuple[Array, Array, Array]:
    """Labels, distances and their sum."""
    centers = centers.astype(jnp.result_type(jnp.float32, x, centers))
    rows = unit_rows(x, block) if spherical else Rows(x, jnp.mean(centers, axis=0), None, block)
    centers = normalize(centers) if spherical else centers - rows.shift

    def step(total: Array, rows: Array, index: Array) -> tuple[Array, tuple[Array, Array]]:
        labels = _nearest(centers[None], rows, count)[0]
        near = centers[labels]
        distances = jnp.maximum(1 - jnp.sum(rows * near, 1), 0) if spherical else jnp.sum((rows - near) ** 2, 1)
        return total, (labels, distances)

    labels, distances = (rows.joined(part) for part in rows.fold(step, 0)[1])
    return labels, distances, jnp.sum(distances)


def _variance(rows: Rows) -> Array:
    """Mean over the columns of their variance."""

    def step(carry: tuple[Array, Array, Array], rows: Array, index: Array) -> tuple[tuple, None]:
        counted = jnp.where(index[:, None] >= 0, rows, 0)
        return (carry[0] + jnp.sum(index >= 0), carry[1] + jnp.sum(counted, 0), carry[2] + jnp.sum(counted**2, 0)), None

    zero = jnp.zeros_like(rows.shift)
    (count, sums, squares), _ = rows.fold(step, (jnp.int32(0), zero, zero))
    count = jnp.maximum(count, 1)
    return jnp.mean(squares / count - (sums / count) ** 2)


class _Search(NamedTuple):
    """Restarts on their way, each in a slot that takes the next when one ends, and the best so far."""

    centers: Array  # [slots, k, d]
    restart: Array  # [slots], at least the number of restarts where the slot idles
    steps: Array  # [slots]
    started: Array
    best: tuple[Array, Array, Array]  # fit, centers [k, d], steps


def _search(rows: Rows, starts: Array, max_iter: int, limit: Array, count: Count = None) -> tuple[Array, Array]:
    """Centers [k, d] and steps of the best restart; `starts` [restarts, k]."""
    restarts, k = starts.shape
    slots = max(1, min(restarts, _COLUMNS // k))

    def step(now: _Search) -> _Search:
        centers, fit = _lloyd(rows, now.centers, count)
        moved, steps = jnp.sum((centers - now.centers) ** 2, (1, 2)), now.steps + 1
        done = (now.restart < restarts) & ((moved <= limit) | (steps >= max_iter))
        top = jnp.argmax(jnp.where(done, fit, -jnp.inf))
        better = done[top] & (fit[top] > now.best[0])
        found = (fit[top], centers[top], steps[top])
        best = jax.tree.map(partial(jnp.where, better), found, now.best)
        restart = jnp.where(done, now.started + jnp.cumsum(done) - 1, now.restart)
        fresh = rows.take(starts[jnp.minimum(restart, restarts - 1)])
        centers = jnp.where(done[:, None, None], fresh, centers)
        return _Search(centers, restart, jnp.where(done, 0, steps), now.started + jnp.sum(done), best)

    first, zero = rows.take(starts[:slots]), jnp.int32(0)
    none = (jnp.full((), -jnp.inf, first.dtype), jnp.zeros_like(first[0]), zero)
    start = _Search(first, jnp.arange(slots), jnp.zeros(slots, jnp.int32), jnp.int32(slots), none)
    end = lax.while_loop(lambda now: jnp.any(now.restart < restarts), step, start)
    return end.best[1], end.best[2]


def _lloyd(rows: Rows, centers: Array, count: Count = None) -> tuple[Array, Array]:
    """The next centers [slots, k, d], and how well they fit: sum of squares (or cosines) that they account for."""
    k = centers.shape[1]

    def step(carry: tuple[Array, Array], rows: Array, index: Array) -> tuple[tuple[Array, Array], None]:
        # Rows that don't count belong to no cluster.
        labels = jnp.where(index >= 0, _nearest(centers, rows, count), k)
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
    """`means`, but each empty cluster's one of the rows that are farthest from their centers."""

    def step(carry: tuple[Array, Array], rows: Array, index: Array) -> tuple[tuple[Array, Array], None]:
        squares = jnp.sum(rows**2, 1) + 2 * jnp.min(half_squares(centers, rows, count), 1)
        both = jnp.concatenate([carry[0], jnp.where(index >= 0, squares, -jnp.inf)], 1)
        indices = jnp.concatenate([carry[1], jnp.broadcast_to(index, squares.shape)], 1)
        top, at = lax.top_k(both, empty.shape[1])
        return (top, jnp.take_along_axis(indices, at, 1)), None

    none = jnp.full(empty.shape, -jnp.inf, centers.dtype), jnp.zeros(empty.shape, jnp.int32)
    (_, farthest), _ = rows.fold(step, none)
    rank = jnp.maximum(jnp.cumsum(empty, axis=1) - 1, 0)
    return jnp.where(empty[..., None], rows.take(jnp.take_along_axis(farthest, rank, 1)), means)


def _nearest(centers: Array, rows: Array, count: Count) -> Array:
    """The nearest of each slot's centers, the first if several are: [slots, k, d] and [b, d] to int32 [slots, b]."""
    halves = half_squares(centers, rows, count)
    # XLA's own argmin takes three times as long on CPU where k is large.
    clusters = jnp.arange(halves.shape[1])[:, None]
    nearest = halves <= lax.optimization_barrier(jnp.min(halves, axis=1, keepdims=True))
    return jnp.min(jnp.where(nearest, clusters, halves.shape[1] - 1), axis=1)


def _check_rows(name: str, x: Array, block: int) -> None:
    if jnp.ndim(x) != 2 or 0 in jnp.shape(x) or not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        found = f"{jnp.result_type(x)} of shape {jnp.shape(x)}"
        raise ValueError(f"{name}: needs floating point [n, d] with n and d above 0, got {found}")
    if block < 1:
        raise ValueError(f"{name}: needs a block of 1 or more, got {block}")
