"""Iterates over rows in blocks to compare each with a few points, without copying the data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.losses import normalize
from clustering_jax.typing import Array

# Number of clusters from which a CPU sums rows one by one instead of multiplying by a one-hot matrix. With 167 clusters
# this is a hundred times as fast.
_SCATTERED = 32


class Rows(NamedTuple):
    """The rows of `x` in blocks of equal size, shifted or scaled when they are read.

    The last block overlaps the block before it if the rows cannot be divided evenly. Padding would copy `x` instead.

    Args:
      x: [n, d] data.
      shift: [d], subtracted from each row if `scale` is None.
      scale: [n], multiplied with each row, or None.
      block: largest number of rows in a block.
    """

    x: Array
    shift: Array
    scale: Array | None
    block: int

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-len(self.x) // self.block)

    @property
    def size(self) -> int:
        """Number of rows in each block."""
        return -(-len(self.x) // self.blocks)

    def first(self, block: Array) -> Array:
        """Row number of the first row of `block`."""
        return jnp.minimum(block * self.size, len(self.x) - self.size)

    def take(self, index: Array) -> Array:
        """The rows with numbers `index`: [...] to [..., d]."""
        x, scale = jax.tree.map(lambda each: each[index.reshape(-1)], (self.x, self.scale))
        return self._prepared(x, scale).reshape(*index.shape, -1)

    def _prepared(self, x: Array, scale: Array | None) -> Array:
        x = x.astype(self.shift.dtype)
        return x - self.shift if scale is None else x * scale[:, None]

    def fold(self, step: Callable, carry: Any, *each: Array) -> tuple[Any, Any]:
        """Applies `step` to each block in turn, as `jax.lax.scan` does.

        Args:
          step: ``(carry, rows [size, d], index [size], *each) -> (carry, output)``. The index is the row number, or -1
            if the row must be ignored: it was already in an earlier block, or its scale is 0.
          carry: first value of the carry.
          *each: arrays [blocks, ...] with further arguments for each block.

        Returns:
          The last carry, and the outputs stacked along a new first axis.
        """

        def body(carry: Any, xs: tuple) -> tuple[Any, Any]:
            first = self.first(xs[0])
            x, scale = jax.tree.map(lambda each: lax.dynamic_slice_in_dim(each, first, self.size), (self.x, self.scale))
            index = (first + jnp.arange(self.size)).astype(jnp.int32)
            counts = (index >= xs[0] * self.size) & (True if scale is None else scale != 0)
            return step(carry, self._prepared(x, scale), jnp.where(counts, index, -1), *xs[1:])

        return lax.scan(body, carry, (jnp.arange(self.blocks), *each))

    def joined(self, blocks: Array) -> Array:
        """Joins the outputs of `fold`, without the rows that two blocks share: [blocks, size, ...] to [n, ...]."""
        before = blocks[:-1].reshape(-1, *blocks.shape[2:])
        return jnp.concatenate([before, blocks[-1, self.blocks * self.size - len(self.x) :]])


def unit_rows(x: Array, block: int) -> Rows:
    """`Rows` that are scaled to norm 1.

    The scales are computed once. Computing them in every pass would take a sixth of the time of k-means.
    """
    raw = Rows(x, jnp.zeros(x.shape[1], jnp.result_type(jnp.float32, x)), None, block)
    norm = raw.joined(raw.fold(lambda carry, rows, _: (carry, jnp.sum(rows * normalize(rows), 1)), None)[1])
    return raw._replace(scale=jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm, 1), 0))


def half_squares(points: Array, rows: Array, count: Array | None = None) -> Array:
    """Half the squared distance between points and rows, minus half the squared norm of the row.

    Args:
      points: [..., k, d].
      rows: [b, d].
      count: number of points to use, or None for all. Points from number `count` on are at infinite distance.

    Returns:
      [..., k, b].
    """
    products = jnp.einsum("...kd,bd->...kb", points, rows, precision="highest")
    halves = jnp.sum(points**2, -1)[..., None] / 2 - products
    return halves if count is None else jnp.where(jnp.arange(points.shape[-2])[:, None] < count, halves, jnp.inf)


def label_sums(labels: Array, rows: Array, k: int) -> tuple[Array, Array]:
    """Sum and number of the rows in each cluster.

    Args:
      labels: int [slots, b] label of each row in each slot; rows with label k are left out.
      rows: [b, d].
      k: number of clusters.

    Returns:
      ``(sums [slots, k, d], counts [slots, k])``.
    """
    if k < _SCATTERED:
        return _multiplied(labels, rows, k)
    return lax.platform_dependent(labels, rows, cpu=partial(_scattered, k=k), default=partial(_multiplied, k=k))


def _multiplied(labels: Array, rows: Array, k: int) -> tuple[Array, Array]:
    """`label_sums` as a product with a one-hot matrix: fast on accelerators, and on a CPU for small k."""
    one_hot = (labels[:, None] == jnp.arange(k)[:, None]).astype(rows.dtype)
    return jnp.einsum("gkb,bd->gkd", one_hot, rows, precision="highest"), jnp.sum(one_hot, 2)


def _scattered(labels: Array, rows: Array, k: int) -> tuple[Array, Array]:
    """`label_sums` by adding the rows one by one."""
    sums = jax.vmap(lambda slot: jax.ops.segment_sum(rows, slot, k))(labels)
    return sums, jax.vmap(lambda slot: jax.ops.segment_sum(jnp.ones_like(rows[:, 0]), slot, k))(labels)
