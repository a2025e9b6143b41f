"""k-means on the device. The restarts run together: their centroids form one matrix product with each block of rows.

`kmeans` and `assign` are pure functions, compile to one program, and can be called inside `jax.jit`. With sharded rows
the result is the same up to rounding. The rows stay on their devices if one block holds all of them
(``block=len(x)``); otherwise every device gathers them. All entries and their squares must be finite.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.kmeans.nearest import centre, nearest, nearest_exactly
from clustering_jax.kmeans.plus_plus import initial_rows
from clustering_jax.kmeans.row_blocks import Rows, half_squares, label_sums, unit_rows
from clustering_jax.losses import normalize
from clustering_jax.typing import Array, Float, Int

Count = Array | None
# Centroids in one matrix product: enough for full speed, and few enough that the result stays in cache.
_COLUMNS = 256
# With less of the squares than one part in so many left, they are too coarse to compare restarts.
_EXPLAINED = 20
# With less than that of them left, the search itself is too coarse: groups may be far apart.
_COARSE = 10_000


class KMeans(NamedTuple):
    """Result of `kmeans`, from the restart with the smallest inertia.

    Args:
      centers: [k, d] centroids.
      labels: int32 [n] index of the nearest centroid of each row.
      inertia: sum over the rows of the squared distance to the nearest centroid, or of 1 - cosine if spherical.
      iterations: number of iterations of this restart.
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
    """k-means by Lloyd's algorithm with greedy k-means++ initialisation and several restarts.

    Restart i depends only on `key` and i, so more restarts never give a worse result. A restart ends when the squared
    movement of its centroids, summed over all centroids, is at most `tol` times the mean variance of a column. This is
    also the case when no label changes. A cluster that loses all its rows moves to the row that is farthest from its
    centroid. With fewer than `k` distinct rows some clusters stay empty. Besides `x` and the centroids of all
    restarts, the memory holds a few numbers per row, but no copy of `x`.

    The labels are those of the nearest centroids, to the rounding of a squared difference. The restarts are compared by
    squared differences too, where a few rows are far away.

    Args:
      key: key of `jax.random`.
      x: [n, d] rows; half precision is computed in float32. Sums of squares must be numbers in its precision: divide
        rows with numbers above 1e16 first.
      k: number of clusters, in [1, n].
      restarts: number of restarts, at least 1.
      count: number of clusters to use, in [1, k], or None for k. Clusters from number `count` on stay empty. It may be
        traced, so one compiled program can serve all numbers up to k.
      max_iter: largest number of iterations of each restart, at least 1.
      tol: tolerance, at least 0.
      spherical: if true, rows and centroids are scaled to norm 1 and compared by their cosine. A row of zeros has
        distance 1 from every centroid and does not move any.
      block: number of rows that are processed at a time, at least 1.

    Returns:
      `KMeans`. Its inertia is close to that of scikit-learn with the same number of restarts.

    Raises:
      ValueError: `x` is not floating point [n, d] with d above 0, or a number is out of its range.

    References:
      - Lloyd, Least squares quantization in PCM, IEEE Transactions on Information Theory 1982.
      - Arthur and Vassilvitskii, k-means++: the advantages of careful seeding, SODA 2007; with 2 + log k candidates for
        each initial centroid.
      - Dhillon and Modha, Concept decompositions for large sparse text data, Machine Learning 2001: spherical k-means.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from clustering_jax.kmeans import kmeans
      >>> x = jnp.array([[0.0, 0.0], [0.0, 2.0], [9.0, 0.0], [9.0, 2.0]])
      >>> result = kmeans(jax.random.key(0), x, 2)
      >>> float(result.inertia)
      4.0
      >>> bool(result.labels[0] == result.labels[1]), bool(result.labels[0] == result.labels[2])
      (True, False)
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
    """Assigns each row to its nearest centroid.

    Args:
      x: [n, d] rows.
      centers: [k, d] centroids.
      count: number of centroids to use, in [1, k], or None for all.
      spherical: if true, rows and centroids are compared by their cosine.
      block: number of rows that are processed at a time, at least 1.

    Returns:
      ``(labels, distances)``. The labels are int32 [n]; in a tie the first centroid is taken. The distances [n] are
      squared Euclidean distances, or 1 - cosine if spherical. They are >= 0, accurate near 0 too, and their sum is the
      inertia.

    Raises:
      ValueError: `x` or `centers` is not floating point [., d] with the same d above 0, or there is no centroid.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.kmeans import assign
      >>> labels, distances = assign(jnp.array([[1.0, 0.0], [6.0, 4.0]]), jnp.array([[0.0, 0.0], [6.0, 6.0]]))
      >>> labels.tolist(), distances.tolist()
      ([0, 1], [1.0, 4.0])
    """
    _check_rows("assign", x, block)
    _check_rows("assign", centers, block)
    x, centers = jnp.asarray(x), jnp.asarray(centers)
    if x.shape[1] != centers.shape[1]:
        raise ValueError(
            f"assign: needs x and centers with the same number of columns, got {x.shape} and {centers.shape}"
        )
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
    # Distances are computed from expanded squares. Centring the rows keeps their rounding errors small.
    shift, spread = centre(x)
    rows = unit_rows(x, block) if spherical else Rows(x, shift, None, block)
    variance = _variance(rows)
    limit = tol * jnp.minimum(variance, spread)
    found = _search(rows, initial_rows(key, rows, k, restarts), max_iter, limit, count)
    best = found.best if spherical or restarts == 1 else _best(rows, found, count, variance * x.size)
    centers = found.ended[best]
    if not spherical:
        coarse = variance * x.size - found.fit < variance * x.size / _COARSE
        polish = partial(_polished, rows, tol, max_iter, count, x.size)
        centers = lax.cond(coarse, polish, lambda centers: centers, centers)
    centers = centers + rows.shift
    labels, _, inertia = _assign(x, centers, count, spherical=spherical, block=block)
    return KMeans(centers, labels, inertia, found.iterations[best])


def _best(rows: Rows, found: _Search, count: Count, total: Array) -> Array:
    """Number of the best restart.

    The fit of the search, `total` minus the inertia, rounds the differences away where nearly all of `total` is
    explained, for example by a few rows that are far away. There, the inertia from squared differences decides, if
    another restart's is smaller by more than its own rounding.
    """

    def compared() -> Array:
        inertias = lax.map(lambda centers: _inertia(rows, centers, count), found.ended)
        least = jnp.argmin(inertias).astype(jnp.int32)
        return jnp.where(inertias[least] < inertias[found.best] * (1 - 1e-6), least, found.best)

    return lax.cond(total - found.fit > total / _EXPLAINED, lambda: found.best, compared)


def _inertia(rows: Rows, centers: Array, count: Count) -> Array:
    """The inertia of centers [k, d], from squared differences."""

    def step(total: Array, x: Array, index: Array) -> tuple[Array, None]:
        return total + jnp.sum(jnp.where(index >= 0, nearest_exactly(centers, x, count)[1], 0)), None

    return rows.fold(step, jnp.zeros((), rows.shift.dtype))[0]


def _polished(rows: Rows, tol: Array, max_iter: int, count: Count, size: int, centers: Array) -> Array:
    """Goes on from centers [k, d] by squared differences, until they move little compared with their own clusters."""

    def exactly(centers: Array, rows: Array, count: Count) -> Array:
        return nearest_exactly(centers[0], rows, count)[0][None]

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        new = _lloyd(rows, state[0][None], count, exactly)[0][0]
        return new, jnp.sum((new - state[0]) ** 2), state[2] + 1

    limit = tol * _inertia(rows, centers, count) / size
    start = centers, jnp.full((), jnp.inf, centers.dtype), jnp.int32(0)
    return lax.while_loop(lambda state: (state[1] > limit) & (state[2] < max_iter), step, start)[0]


@partial(jax.jit, static_argnames=("spherical", "block"))
def _assign(x: Array, centers: Array, count: Count, *, spherical: bool, block: int) -> tuple[Array, Array, Array]:
    """Labels [n], distances [n] and the sum of the distances."""
    centers = centers.astype(jnp.result_type(jnp.float32, x, centers))
    # Without a shift, which would round the differences to the centers.
    rows = unit_rows(x, block) if spherical else Rows(x, jnp.zeros_like(centers[0]), None, block)
    centers = normalize(centers) if spherical else centers

    def step(total: Array, rows: Array, index: Array) -> tuple[Array, tuple[Array, Array]]:
        if not spherical:
            return total, nearest_exactly(centers, rows, count)
        labels = nearest(centers[None], rows, count)[0]
        return total, (labels, jnp.maximum(1 - jnp.sum(rows * centers[labels], 1), 0))

    labels, distances = (rows.joined(part) for part in rows.fold(step, 0)[1])
    return labels, distances, jnp.sum(distances)


def _variance(rows: Rows) -> Array:
    """Mean variance of the columns."""

    def step(carry: tuple[Array, Array, Array], rows: Array, index: Array) -> tuple[tuple, None]:
        counted = jnp.where(index[:, None] >= 0, rows, 0)
        return (
            carry[0] + jnp.sum(index >= 0, dtype=jnp.int32),
            carry[1] + jnp.sum(counted, 0),
            carry[2] + jnp.sum(counted**2, 0),
        ), None

    zero = jnp.zeros_like(rows.shift)
    (count, sums, squares), _ = rows.fold(step, (jnp.int32(0), zero, zero))
    count = jnp.maximum(count, 1)
    return jnp.mean(squares / count - (sums / count) ** 2)


class _Search(NamedTuple):
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


def _search(rows: Rows, initial: Array, max_iter: int, limit: Array, count: Count = None) -> _Search:
    """All restarts, as they ended. `initial`, int [restarts, k], are the rows to start from."""
    restarts, k = initial.shape
    slots = max(1, min(restarts, _COLUMNS // k))

    def step(now: _Search) -> _Search:
        centers, fit = _lloyd(rows, now.centers, count)
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
        return _Search(centers, restart, jnp.where(done, 0, steps), started, ended, iterations, best, best_fit)

    first, zero = rows.take(initial[:slots]), jnp.int32(0)
    none = jnp.full((), -jnp.inf, first.dtype)
    ended, iterations = jnp.zeros((restarts, *first.shape[1:]), first.dtype), jnp.zeros(restarts, jnp.int32)
    begun = jnp.arange(slots, dtype=jnp.int32), jnp.zeros(slots, jnp.int32), jnp.int32(slots)
    start = _Search(first, *begun, ended, iterations, zero, none)
    return lax.while_loop(lambda now: jnp.any(now.restart < restarts), step, start)


def _lloyd(
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


def _check_rows(name: str, x: Array, block: int) -> None:
    if jnp.ndim(x) != 2 or 0 in jnp.shape(x) or not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        got = f"{jnp.result_type(x)} of shape {jnp.shape(x)}"
        raise ValueError(f"{name}: needs floating point [n, d] with n and d above 0, got {got}")
    if block < 1:
        raise ValueError(f"{name}: needs a block of 1 or more, got {block}")
