"""Exact nearest neighbours by cosine on the device, block by block."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.losses import normalize
from clustering_jax.typing import Array, Float, Int

# Columns whose largest similarity stands for all of them until the best groups are known.
_GROUP = 64


def nearest_neighbours(x: Float[Array, "n d"], k: int, *, block: int = 1024, columns: int = 65536) -> Int[Array, "n k"]:
    """The `k` other rows of greatest cosine with each row, greatest first; of equal ones the first row first.

    Exact: every pair is compared. Memory beyond `x` and the result is some ``block * columns`` numbers.

    Args:
      x: [n, d] floating; a row of zeros has cosine 0 with all.
      k: 1 to n - 1.
      block: rows at a time. columns: rows that a block is compared with at a time. Both at least 1.

    Raises:
      ValueError: `x` is not floating [n, d], or a number is out of its range.
    """
    if jnp.ndim(x) != 2 or not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        raise ValueError(f"nearest_neighbours: needs floating [n, d], got {jnp.result_type(x)} of {jnp.shape(x)}")
    if not 1 <= k < len(x):
        raise ValueError(f"nearest_neighbours: needs 1 <= k < n, got k = {k} for {len(x)} rows")
    if block < 1 or columns < 1:
        raise ValueError(f"nearest_neighbours: needs 1 or more, got block = {block} and columns = {columns}")
    columns = max(min(columns, len(x)) // _GROUP, 1) * _GROUP
    return _search(jnp.asarray(x), k=k, block=min(block, len(x)), columns=columns)


@partial(jax.jit, static_argnames=("k", "block", "columns"))
def _search(x: Array, *, k: int, block: int, columns: int) -> Array:
    n, unit = len(x), normalize(x)
    # Whole groups come in blocks of columns, the last reaching back over the one before, and the rest by itself.
    whole = n - n % _GROUP

    def one(first: Array) -> Array:
        rows = jnp.minimum(first + jnp.arange(block), n - 1)
        merge = partial(_merged, unit[rows])

        def add(i: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
            start = jnp.minimum(i * columns, whole - columns)
            return merge(lax.dynamic_slice_in_dim(unit, start, columns), start, i * columns - start, best)

        # One more than asked for: a row itself is among its nearest, unless as many others equal it.
        best = jnp.full((block, k + 1), -jnp.inf, unit.dtype), jnp.full((block, k + 1), n)
        if whole:
            best = lax.fori_loop(0, -(-whole // columns), add, best)
        if whole < n:
            best = merge(unit[whole:], whole, 0, best)
        others = jnp.argsort(best[1] == rows[:, None], axis=1, stable=True)[:, :k]
        return jnp.take_along_axis(best[1], others, 1)

    return lax.map(one, jnp.arange(0, n, block)).reshape(-1, k)[:n]


def _merged(own: Array, others: Array, start: Array, seen: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
    """`best`, similarities and rows [b, k], after `others`, the rows from `start`, of which some were `seen`."""
    k = best[0].shape[1]
    found, place = _largest(jnp.einsum("bd,cd->bc", own, others, precision="highest"), seen, k)
    # What came before has lower row numbers, and top_k keeps the order of equal ones.
    values, indices = (jnp.concatenate(pair, 1) for pair in zip(best, (found, start + place), strict=True))
    top, at = lax.top_k(values, k)
    return top, jnp.take_along_axis(indices, at, 1)


def _largest(similarity: Array, seen: Array, k: int) -> tuple[Array, Array]:
    """`lax.top_k` of [b, c] rows from column `seen`, looking only into the groups of columns with the largest maxima.

    The k largest lie in the k groups of largest maxima, and with equal ones `top_k`'s choice of the first does not
    change: an element of a group left out equals at most the last of k maxima, all of them in earlier groups or larger.
    """
    b, c = similarity.shape
    if c <= _GROUP * k:
        return lax.top_k(jnp.where(jnp.arange(c) < seen, -jnp.inf, similarity), min(k, c))
    grouped = similarity.reshape(b, -1, _GROUP)
    # Columns are seen by whole groups: no pass over all similarities but that for the maxima.
    maxima = jnp.where(jnp.arange(c // _GROUP) * _GROUP < seen, -jnp.inf, grouped.max(2))
    groups = jnp.sort(lax.top_k(maxima, k)[1], axis=1)
    candidates = jnp.take_along_axis(grouped, groups[..., None], 1)
    candidates = jnp.where(groups[..., None] * _GROUP < seen, -jnp.inf, candidates).reshape(b, -1)
    top, at = lax.top_k(candidates, k)
    return top, jnp.take_along_axis(groups, at // _GROUP, 1) * _GROUP + at % _GROUP
