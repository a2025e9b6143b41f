"""k-means on the device. The restarts run together: their centroids form one matrix product with each block of rows.

`kmeans` and `assign` are pure functions, compile to one program, and can be called inside `jax.jit`. With sharded rows
the result is the same up to rounding. The rows stay on their devices if one block holds all of them
(``block=len(x)``); otherwise every device gathers them. All entries and their squares must be finite.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.kmeans.nearest import centre, nearest, nearest_exactly
from clustering_jax.kmeans.plus_plus import initial_rows
from clustering_jax.kmeans.row_blocks import Rows, unit_rows
from clustering_jax.kmeans.search import Count, Search, iterate, search
from clustering_jax.losses import normalize
from clustering_jax.parallel import by_backend
from clustering_jax.typing import Array, Float, Int

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
    block: int | None = None,
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
      block: number of rows that are processed at a time, at least 1; None is 2,048 on a CPU, and 32,768 elsewhere.

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
    block = _block_of("kmeans", block)
    _check_rows("kmeans", x)
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
    block: int | None = None,
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Assigns each row to its nearest centroid.

    Args:
      x: [n, d] rows.
      centers: [k, d] centroids.
      count: number of centroids to use, in [1, k], or None for all.
      spherical: if true, rows and centroids are compared by their cosine.
      block: number of rows that are processed at a time, at least 1; None is 2,048 on a CPU, and 32,768 elsewhere.

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
    block = _block_of("assign", block)
    _check_rows("assign", x)
    _check_rows("assign", centers)
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
    found = search(rows, initial_rows(key, rows, k, restarts), max_iter, limit, count)
    best = found.best if spherical or restarts == 1 else _best(rows, found, count, variance * x.size)
    centers = found.ended[best]
    if not spherical:
        coarse = variance * x.size - found.fit < variance * x.size / _COARSE
        polish = partial(_polished, rows, tol, max_iter, count, x.size)
        centers = lax.cond(coarse, polish, lambda centers: centers, centers)
    centers = centers + rows.shift
    labels, _, inertia = _assign(x, centers, count, spherical=spherical, block=block)
    return KMeans(centers, labels, inertia, found.iterations[best])


def _best(rows: Rows, found: Search, count: Count, total: Array) -> Array:
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
        new = iterate(rows, state[0][None], count, exactly)[0][0]
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


def _block_of(name: str, block: int | None) -> int:
    if block is not None and block < 1:
        raise ValueError(f"{name}: needs a block of 1 or more, got {block}")
    return block or by_backend(2048, 32_768)


def _check_rows(name: str, x: Array) -> None:
    if jnp.ndim(x) != 2 or 0 in jnp.shape(x) or not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        got = f"{jnp.result_type(x)} of shape {jnp.shape(x)}"
        raise ValueError(f"{name}: needs floating point [n, d] with n and d above 0, got {got}")
