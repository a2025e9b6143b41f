"""Log-sums of exponentials over pairs of rows in memory linear in the rows.

The 2n x 2n similarities are never stored: rows meet the columns a block at a time and keep a running maximum and
sum (online softmax), and the backward pass computes each block again from the rows and their log-sums. Similarity
is symmetric, so the gradient of a device's own rows needs of the others only what they hold in full: rows, log-sums
and cotangents. In the ring these travel, and no sum of gradients does.

References:
  Milakov and Gimelshein, Online normalizer calculation for softmax, 2018, algorithm 3.
  Dao et al., FlashAttention, NeurIPS 2022, appendix B: the backward pass from the log-sums.
  Liu et al., Ring Attention with Blockwise Transformers, ICLR 2024: columns that travel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.parallel import axis_size, gather
from clustering_jax.typing import Array, Float, Int

# Similarity of what is not compared. Not infinite: a row with no negative at all would have no gradient.
EXCLUDED = -1e30


class _Plan(NamedTuple):
    """How the columns are visited."""

    axis_name: str | None
    ring: bool
    block: int


def log_sums(
    rows: Float[Array, "m d"],
    examples: Int[Array, " m"],
    temperature: float | Float[Array, ""],
    *,
    axis_name: str | None = None,
    ring: bool = False,
    block: int = 512,
) -> Float[Array, " m"]:
    """Log of the sum of ``exp(z_i . z_j / temperature)`` over the rows z_j of other examples, for each row z_i.

    Products and sums are float32 or wider, whatever the rows are. Memory holds, beside rows and their gradient, a few
    numbers a row and [m, block] similarities at a time. Under `jax.jit` with sharded rows each device keeps its own
    and gathers one block of columns at a time if the number of blocks divides the rows of a device; otherwise XLA
    moves rows between the devices first.

    Args:
      rows: [m, d] all views of all examples, finite.
      examples: [m] the example that each is a view of, numbered from 1; rows of 0 are compared with nothing.
      temperature: > 0.
      axis_name: mapped axis over which the rows are split.
      ring: pass the columns from device to device along `axis_name`; otherwise all are gathered first.
      block: largest number of columns at a time.

    Returns:
      [m], about -1e30 for rows that are compared with nothing.

    Raises:
      ValueError: when differentiated twice.
      TypeError: by JAX, when differentiated in forward mode.
    """
    dtype = jnp.result_type(jnp.float32, rows, temperature)
    # Under `shard_map` a custom derivative must vary over the devices where its argument does: the zeros see to it.
    rows = rows + jnp.zeros_like(examples[0], rows.dtype)
    temperature = jnp.asarray(temperature, dtype) + jnp.zeros_like(rows[0, 0], dtype)
    return _log_sums(rows, examples, temperature, _Plan(axis_name, ring, block))


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _log_sums(rows: Array, examples: Array, temperature: Array, plan: _Plan) -> Array:
    def add(running: tuple[Array, Array], columns: tuple[Array, Array]) -> tuple[Array, Array]:
        highest, total = running
        similarity = similarities(rows, examples, *columns, temperature)
        higher = jnp.maximum(highest, jnp.max(similarity, axis=1))
        terms = jnp.exp(similarity - higher[:, None])
        return higher, total * jnp.exp(highest - higher) + jnp.sum(terms, axis=1)

    start = jnp.zeros_like(rows[:, 0], temperature.dtype)
    highest, total = _over_columns(add, (start + EXCLUDED, start), (rows, examples), plan)
    return highest + jnp.log(total)


def _forward(rows: Array, examples: Array, temperature: Array, plan: _Plan) -> tuple[Array, tuple[Array, ...]]:
    rows, temperature = once((rows, temperature))
    sums = _log_sums(rows, examples, temperature, plan)
    return sums, (rows, examples, temperature, sums)


def _backward(plan: _Plan, residuals: tuple[Array, ...], cotangents: Array) -> tuple[Array, None, Array]:
    rows, examples, temperature, sums = residuals

    def add(gradient: Array, columns: tuple[Array, ...]) -> Array:
        others, numbers, other_sums, other_cotangents = columns
        similarity = similarities(rows, examples, others, numbers, temperature)
        weights = gradient_weights(similarity, sums, cotangents, other_sums, other_cotangents)
        return gradient + jnp.matmul(weights, others.astype(weights.dtype), precision="highest")

    start = jnp.zeros_like(rows, temperature.dtype)
    gradient = _over_columns(add, start, (rows, examples, sums, cotangents), plan) / temperature
    # The sums depend on rows / sqrt(temperature) alone: of each the derivative follows from the other's.
    return gradient.astype(rows.dtype), None, -jnp.sum(rows * gradient) / (2 * temperature)


_log_sums.defvjp(_forward, _backward)


def similarities(rows: Array, examples: Array, columns: Array, numbers: Array, temperature: Array) -> Array:
    """[m, k] similarities of rows [m, d] and columns [k, d], `EXCLUDED` where they are not compared."""
    dtype = temperature.dtype
    products = jnp.matmul(rows, columns.T, precision="highest", preferred_element_type=dtype)
    excluded = (examples[:, None] == numbers) | (examples[:, None] == 0) | (numbers == 0)
    return jnp.where(excluded, EXCLUDED, products / temperature)


def gradient_weights(
    similarity: Array, sums: Array, cotangents: Array, other_sums: Array, other_cotangents: Array
) -> Array:
    """[m, k] of the columns, in the gradient of the rows times the temperature: one product where JAX would derive two.

    A pair is in the sum of its row and, similarity being symmetric, in that of its column.
    """
    in_row = cotangents[:, None] * jnp.exp(similarity - sums[:, None])
    return in_row + other_cotangents * jnp.exp(similarity - other_sums)


def _over_columns(add: Callable, running: Any, columns: tuple[Array, ...], plan: _Plan) -> Any:
    """`running` after `add` of every block of the columns of all devices; `columns`: [m, ...] of this one."""
    if not plan.ring:
        return _over_blocks(add, running, tuple(gather(x, plan.axis_name) for x in columns), plan.block)
    devices = axis_size(plan.axis_name)
    following = [(i, (i + 1) % devices) for i in range(devices)]

    def turn(_: Array, state: tuple[Any, tuple[Array, ...]]) -> tuple[Any, tuple[Array, ...]]:
        running, here = state
        # Sent before it is used, so that the two can overlap.
        arriving = tuple(lax.ppermute(x, plan.axis_name, following) for x in here)
        return _over_blocks(add, running, here, plan.block), arriving

    return lax.fori_loop(0, devices, turn, (running, columns))[0]


def _over_blocks(add: Callable, running: Any, columns: tuple[Array, ...], block: int) -> Any:
    """`running` after `add` of every block of `columns`, [m, ...] each; the last is filled up with rows of example 0.

    With b blocks each takes every b-th row. Rows that are sharded in order are then sharded in each block too, which
    neighbouring rows would not be: they lie on one device.
    """
    blocks = -(-len(columns[0]) // block)
    size = -(-len(columns[0]) // blocks)
    filled = (jnp.pad(x, [(0, size * blocks - len(x)), *[(0, 0)] * (x.ndim - 1)]) for x in columns)
    split = [x.reshape(size, blocks, *x.shape[1:]) for x in filled]

    def step(index: Array, running: Any) -> Any:
        return add(running, tuple(lax.dynamic_index_in_dim(x, index, axis=1, keepdims=False) for x in split))

    return lax.fori_loop(0, blocks, step, running)


@jax.custom_jvp
def once(x: Any) -> Any:
    """`x`. Derivatives reach the forward pass of a custom derivative only on the way to a second one, and stop here."""
    return x


@once.defjvp
def _refuse(primals: tuple, tangents: tuple) -> Any:
    raise ValueError("nt_xent: blockwise and ring have no second derivative; pass impl='dense', of quadratic memory")
