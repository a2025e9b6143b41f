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


def nearest_neighbours(x: Float[Array, "n d"], k: int, *, block: int = 512, columns: int = 65536) -> Int[Array, "n k"]:
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
    columns = min(columns, len(x) + -len(x) % _GROUP)
    return _search(jnp.asarray(x), k=k, block=min(block, len(x)), columns=columns - columns % _GROUP or _GROUP)


@partial(jax.jit, static_argnames=("k", "block", "columns"))
def _search(x: Array, *, k: int, block: int, columns: int) -> Array:
    n, unit = len(x), normalize(x)

    def one(first: Array) -> Array:
        rows = first + jnp.arange(block)
        own = unit[jnp.minimum(rows, n - 1)]
        merge = partial(_merged, unit, own, rows, k, columns)
        none = jnp.full((block, k), -jnp.inf, unit.dtype), jnp.zeros((block, k), jnp.int32)
        return lax.fori_loop(0, -(-n // columns), merge, none)[1]

    return lax.map(one, jnp.arange(0, n, block)).reshape(-1, k)[:n]


def _merged(
    unit: Array, own: Array, rows: Array, k: int, columns: int, i: Array, best: tuple[Array, Array]
) -> tuple[Array, Array]:
    """`best`, similarities and rows [b, k], after the columns of block i."""
    others = i * columns + jnp.arange(columns)
    similarity = jnp.einsum("bd,cd->bc", own, unit[jnp.minimum(others, len(unit) - 1)], precision="highest")
    counts = (others < len(unit)) & (others != rows[:, None])
    found, place = _largest(jnp.where(counts, similarity, -jnp.inf), k)
    # What came before has lower row numbers, and top_k keeps the order of equal ones.
    values, indices = (jnp.concatenate(pair, 1) for pair in zip(best, (found, others[place]), strict=True))
    top, at = lax.top_k(values, k)
    return top, jnp.take_along_axis(indices, at, 1)


def _largest(similarity: Array, k: int) -> tuple[Array, Array]:
    """`lax.top_k` of [b, c] rows, but looking only into the groups of columns with the largest maxima.

    The k largest lie in the k groups of largest maxima, and with equal ones `top_k`'s choice of the first does not
    change: an element of a group left out equals at most the last of k maxima, all of them in earlier groups or larger.
    """
    b, c = similarity.shape
    if c <= _GROUP * k:
        return lax.top_k(similarity, min(k, c))
    grouped = similarity.reshape(b, -1, _GROUP)
    groups = jnp.sort(lax.top_k(grouped.max(2), k)[1], axis=1)
    candidates = jnp.take_along_axis(grouped, groups[..., None], 1).reshape(b, -1)
    top, at = lax.top_k(candidates, k)
    return top, jnp.take_along_axis(groups, at // _GROUP, 1) * _GROUP + at % _GROUP
