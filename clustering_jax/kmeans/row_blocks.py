"""Many rows in blocks, for what needs the distance of each to a few points: one pass, and no second copy of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.losses import normalize
from clustering_jax.typing import Array

# Clusters from which a CPU adds rows up one by one: at 167 a hundred times as fast as the product with 0 and 1.
_SCATTERED = 32


class Rows(NamedTuple):
    """The rows of `x` as the algorithm sees them, less `shift` [d] or times `scale` [n], in blocks of equal size.

    The last block reaches back over rows of the one before, as padding would copy `x`.
    """

    x: Array
    shift: Array
    scale: Array | None
    block: int

    @property
    def blocks(self) -> int:
        return -(-len(self.x) // self.block)

    @property
    def size(self) -> int:
        return -(-len(self.x) // self.blocks)

    def first(self, block: Array) -> Array:
        return jnp.minimum(block * self.size, len(self.x) - self.size)

    def take(self, index: Array) -> Array:
        """[...] to [..., d]."""
        x, scale = jax.tree.map(lambda each: each[index.reshape(-1)], (self.x, self.scale))
        return self._prepared(x, scale).reshape(*index.shape, -1)

    def _prepared(self, x: Array, scale: Array | None) -> Array:
        x = x.astype(self.shift.dtype)
        return x - self.shift if scale is None else x * scale[:, None]

    def fold(self, step: Callable, carry: Any, *each: Array) -> tuple[Any, Any]:
        """Scan of ``step(carry, rows [size, d], index [size], *each) -> (carry, output)`` over the blocks.

        A row that does not count, since an earlier block had it or since it has no direction, has index -1.
        """

        def body(carry: Any, xs: tuple) -> tuple[Any, Any]:
            first = self.first(xs[0])
            x, scale = jax.tree.map(lambda each: lax.dynamic_slice_in_dim(each, first, self.size), (self.x, self.scale))
            index = first + jnp.arange(self.size)
            counts = (index >= xs[0] * self.size) & (True if scale is None else scale != 0)
            return step(carry, self._prepared(x, scale), jnp.where(counts, index, -1), *xs[1:])

        return lax.scan(body, carry, (jnp.arange(self.blocks), *each))

    def joined(self, blocks: Array) -> Array:
        """[count, size, ...] to [n, ...]."""
        before = blocks[:-1].reshape(-1, *blocks.shape[2:])
        return jnp.concatenate([before, blocks[-1, self.blocks * self.size - len(self.x) :]])


def unit_rows(x: Array, block: int) -> Rows:
    """Scaled to norm 1, by a number a row that is computed once: in every pass it would be a sixth of k-means."""
    raw = Rows(x, jnp.zeros(x.shape[1], jnp.result_type(jnp.float32, x)), None, block)
    norm = raw.joined(raw.fold(lambda none, rows, _: (none, jnp.sum(rows * normalize(rows), 1)), None)[1])
    return raw._replace(scale=jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm, 1), 0))


def half_squares(points: Array, rows: Array, count: Array | None = None) -> Array:
    """Half the squared distance, less half the row's own square: [..., k, d] and [b, d] to [..., k, b].

    Infinite for points from number `count` on.
    """
    products = jnp.einsum("...kd,bd->...kb", points, rows, precision="highest")
    halves = jnp.sum(points**2, -1)[..., None] / 2 - products
    return halves if count is None else jnp.where(jnp.arange(points.shape[-2])[:, None] < count, halves, jnp.inf)


def label_sums(labels: Array, rows: Array, k: int) -> tuple[Array, Array]:
    """Sums [slots, k, d] and numbers [slots, k] of the rows [b, d] with each of the labels [slots, b]; k is none."""
    if k < _SCATTERED:
        return _multiplied(labels, rows, k)
    return lax.platform_dependent(labels, rows, cpu=partial(_scattered, k=k), default=partial(_multiplied, k=k))


def _multiplied(labels: Array, rows: Array, k: int) -> tuple[Array, Array]:
    """By a product with 0 and 1: what accelerators are made for, and on a CPU the faster way where k is small."""
    member = (labels[:, None] == jnp.arange(k)[:, None]).astype(rows.dtype)
    return jnp.einsum("gkb,bd->gkd", member, rows, precision="highest"), jnp.sum(member, 2)


def _scattered(labels: Array, rows: Array, k: int) -> tuple[Array, Array]:
    """Row by row."""
    sums = jax.vmap(lambda own: jax.ops.segment_sum(rows, own, k))(labels)
    return sums, jax.vmap(lambda own: jax.ops.segment_sum(jnp.ones_like(rows[:, 0]), own, k))(labels)
