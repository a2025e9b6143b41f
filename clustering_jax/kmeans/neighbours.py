"""Exact nearest neighbours by cosine similarity on the device, block by block."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.losses import normalize
from clustering_jax.parallel import by_backend
from clustering_jax.typing import Array, Float, Int

# Columns in a group. Only the largest similarity of each group is compared until the best groups are known.
_GROUP = 64


def nearest_neighbours(
    x: Float[Array, "n d"], k: int, *, block: int | None = None, columns: int = 65536
) -> Int[Array, "n k"]:
    """The `k` nearest neighbours of each row by cosine similarity, without the row itself.

    The search is exact: it compares every pair of rows. Besides `x` and the result, the memory holds about
    ``block * columns`` numbers.

    Args:
      x: [n, d] floating point; a row of zeros has cosine 0 with every row.
      k: number of neighbours, in [1, n - 1].
      block: number of rows that are processed at a time, at least 1; None is 1,024 on a CPU, and 8,192 elsewhere.
      columns: number of rows that a block is compared with at a time, at least 1.

    Returns:
      int [n, k] row numbers, the most similar first. Ties are ordered by row number.

    Raises:
      ValueError: `x` is not floating point [n, d], or a number is out of its range.
    """
    if jnp.ndim(x) != 2 or not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        raise ValueError(f"nearest_neighbours: needs floating [n, d], got {jnp.result_type(x)} of {jnp.shape(x)}")
    if not 1 <= k < len(x):
        raise ValueError(f"nearest_neighbours: needs 1 <= k < n, got k = {k} for {len(x)} rows")
    block = by_backend(1024, 8192) if block is None else block
    if block < 1 or columns < 1:
        raise ValueError(
            f"nearest_neighbours: needs block and columns of 1 or more, got block = {block} and columns = {columns}"
        )
    columns = max(min(columns, len(x)) // _GROUP, 1) * _GROUP
    return _search(jnp.asarray(x), k=k, block=min(block, len(x)), columns=columns)


@partial(jax.jit, static_argnames=("k", "block", "columns"))
def _search(x: Array, *, k: int, block: int, columns: int) -> Array:
    n, unit = len(x), normalize(x)
    # Columns in whole groups come first, in blocks; the last block overlaps the one before. The rest comes at the end.
    whole = n - n % _GROUP

    def one(first: Array) -> Array:
        rows = jnp.minimum(first + jnp.arange(block), n - 1)
        merge = partial(_merged, unit[rows])

        def add(i: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
            start = jnp.minimum(i * columns, whole - columns)
            return merge(lax.dynamic_slice_in_dim(unit, start, columns), start, i * columns - start, best)

        # One more than k, because a row is among its own neighbours, unless k other rows are equal to it.
        best = jnp.full((block, k + 1), -jnp.inf, unit.dtype), jnp.full((block, k + 1), n)
        if whole:
            best = lax.fori_loop(0, -(-whole // columns), add, best)
        if whole < n:
            best = merge(unit[whole:], whole, 0, best)
        others = jnp.argsort(best[1] == rows[:, None], axis=1, stable=True)[:, :k]
        return jnp.take_along_axis(best[1], others, 1)

    return lax.map(one, jnp.arange(0, n, block)).reshape(-1, k)[:n]


def _merged(
    rows: Array, others: Array, start: Array | int, seen: Array | int, best: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Updates the best neighbours with another block of columns.

    Args:
      rows: [b, d] unit rows whose neighbours are searched.
      others: [c, d] unit rows of the block.
      start: row number of the first row of `others`.
      seen: number of rows at the beginning of `others` that an earlier block contained.
      best: similarities [b, k] and row numbers [b, k] so far.

    Returns:
      The new `best`.
    """
    k = best[0].shape[1]
    similarity, column = _largest(jnp.einsum("bd,cd->bc", rows, others, precision="highest"), seen, k)
    # Earlier blocks have smaller row numbers, and top_k keeps the order of equal values.
    values, indices = (jnp.concatenate(pair, 1) for pair in zip(best, (similarity, start + column), strict=True))
    top, at = lax.top_k(values, k)
    return top, jnp.take_along_axis(indices, at, 1)


def _largest(similarity: Array, seen: Array | int, k: int) -> tuple[Array, Array]:
    """`lax.top_k` of each row of `similarity` [b, c], ignoring the first `seen` columns.

    It looks only into the k groups of columns that have the largest maxima, because the k largest values lie there.
    Ties are resolved as `lax.top_k` does, by the first column. The reason: a value in another group is at most equal to
    the smallest of these k maxima, and each of these maxima is larger or in an earlier group.
    """
    b, c = similarity.shape
    if c <= _GROUP * k:
        return lax.top_k(jnp.where(jnp.arange(c) < seen, -jnp.inf, similarity), min(k, c))
    grouped = similarity.reshape(b, -1, _GROUP)
    # `seen` is a multiple of the group size, so only the maxima are masked, not all similarities.
    maxima = jnp.where(jnp.arange(c // _GROUP) * _GROUP < seen, -jnp.inf, grouped.max(2))
    groups = jnp.sort(lax.top_k(maxima, k)[1], axis=1)
    candidates = jnp.take_along_axis(grouped, groups[..., None], 1)
    candidates = jnp.where(groups[..., None] * _GROUP < seen, -jnp.inf, candidates).reshape(b, -1)
    top, at = lax.top_k(candidates, k)
    return top, jnp.take_along_axis(groups, at // _GROUP, 1) * _GROUP + at % _GROUP
