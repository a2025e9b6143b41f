"""Log-sums of exponentials over pairs of rows, in memory that is linear in the number of rows.

The 2n x 2n similarities are never stored. The rows are compared with one block of columns at a time and keep a running
maximum and a running sum (online softmax). The backward pass computes each block again from the rows and their
log-sums. Similarity is symmetric. Therefore a device needs only the rows, log-sums and cotangents of the other devices
to compute the gradient of its own rows. In the ring only these arrays are sent, and no gradients are summed over
devices.

References:
  Milakov and Gimelshein, Online normalizer calculation for softmax, 2018, algorithm 3.
  Dao et al., FlashAttention, NeurIPS 2022, appendix B: the backward pass from the log-sums.
  Liu et al., Ring Attention with Blockwise Transformers, ICLR 2024: blocks of columns sent around a ring of devices.
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

# Similarity of pairs that are not compared. It is finite so that the gradient of a row without negatives is not NaN.
EXCLUDED = -1e30


class _Plan(NamedTuple):
    """How the columns are visited: the arguments of the same names of `log_sums`."""

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
    """For each row z_i, the log of the sum of ``exp(z_i . z_j / temperature)`` over the rows z_j of other examples.

    Products and sums are float32 or wider for any dtype of the rows. Besides the rows and their gradient, the memory
    holds a few numbers per row and [m, block] similarities. Under `jax.jit` with sharded rows, each device keeps its
    own rows and gathers one block of columns at a time if the number of blocks divides the number of rows per device.
    Otherwise XLA moves rows between the devices first.

    Args:
      rows: [m, d] all views of all examples, finite.
      examples: int [m] number of the example that each row is a view of, from 1. Rows with 0 are not compared.
      temperature: > 0.
      axis_name: mapped axis over which the rows are split.
      ring: if true, send the columns from device to device along `axis_name`; otherwise gather all of them first.
      block: largest number of columns in a block.

    Returns:
      [m]; about -1e30 for rows that are not compared with any row.

    Raises:
      ValueError: it is differentiated twice.
      TypeError: raised by JAX if it is differentiated in forward mode.
    """
    dtype = jnp.result_type(jnp.float32, rows, temperature)
    # Under `shard_map` the arguments of a custom derivative must all vary over the same devices. Adding zeros that
    # depend on another argument makes them do so.
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
    # The sums depend only on rows / sqrt(temperature), so the temperature's gradient follows from that of the rows.
    return gradient.astype(rows.dtype), None, -jnp.sum(rows * gradient) / (2 * temperature)


_log_sums.defvjp(_forward, _backward)


def similarities(rows: Array, examples: Array, columns: Array, numbers: Array, temperature: Array) -> Array:
    """Similarities [m, k] of rows [m, d] and columns [k, d].

    Args:
      rows: [m, d].
      examples: int [m] example of each row.
      columns: [k, d].
      numbers: int [k] example of each column.
      temperature: > 0; its dtype is the dtype of the result.

    Returns:
      [m, k]; `EXCLUDED` for pairs of the same example and for rows and columns of example 0.
    """
    dtype = temperature.dtype
    products = jnp.matmul(rows, columns.T, precision="highest", preferred_element_type=dtype)
    excluded = (examples[:, None] == numbers) | (examples[:, None] == 0) | (numbers == 0)
    return jnp.where(excluded, EXCLUDED, products / temperature)


def gradient_weights(
    similarity: Array, sums: Array, cotangents: Array, other_sums: Array, other_cotangents: Array
) -> Array:
    """Weights [m, k] of the columns in the gradient of the rows, multiplied by the temperature.

    Each pair contributes to the sum of its row and, because similarity is symmetric, to the sum of its column. Adding
    both weights takes one matrix product; the derivative that JAX would compute takes two.

    Args:
      similarity: [m, k].
      sums: [m] log-sums of the rows.
      cotangents: [m] cotangents of these log-sums.
      other_sums: [k] log-sums of the columns.
      other_cotangents: [k] cotangents of these log-sums.
    """
    in_row = cotangents[:, None] * jnp.exp(similarity - sums[:, None])
    return in_row + other_cotangents * jnp.exp(similarity - other_sums)


def _over_columns(add: Callable, running: Any, columns: tuple[Array, ...], plan: _Plan) -> Any:
    """Applies ``running = add(running, block)`` to the blocks of columns of all devices.

    Args:
      add: ``(running, block of columns) -> running``.
      running: first value.
      columns: arrays [m, ...] of this device.
      plan: how the columns are visited.
    """
    if not plan.ring:
        return _over_blocks(add, running, tuple(gather(x, plan.axis_name) for x in columns), plan.block)
    devices = axis_size(plan.axis_name)
    following = [(i, (i + 1) % devices) for i in range(devices)]

    def turn(_: Array, state: tuple[Any, tuple[Array, ...]]) -> tuple[Any, tuple[Array, ...]]:
        running, current = state
        # Sent before it is used, so that communication and computation can overlap.
        arriving = tuple(lax.ppermute(x, plan.axis_name, following) for x in current)
        return _over_blocks(add, running, current, plan.block), arriving

    return lax.fori_loop(0, devices, turn, (running, columns))[0]


def _over_blocks(add: Callable, running: Any, columns: tuple[Array, ...], block: int) -> Any:
    """Applies ``running = add(running, block)`` to the blocks of `columns`, arrays [m, ...].

    The last block is padded with rows of example 0. With b blocks, each block takes every b-th row. Rows that are
    sharded in order are then sharded inside each block too. Consecutive rows would all lie on one device instead.
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
    """Returns `x`, and raises an error when it is differentiated.

    It is used in the forward pass of a custom derivative, which is differentiated only for a second derivative.
    """
    return x


@once.defjvp
def _refuse(primals: tuple, tangents: tuple) -> Any:
    raise ValueError("nt_xent: blockwise and ring have no second derivative; pass impl='dense' (quadratic memory)")
