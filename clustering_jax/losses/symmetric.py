"""`log_sums` on one device. Similarity is symmetric, so each pair of blocks is visited once for both of its blocks.

This halves the number of similarities in both passes. Recomputing them in the backward pass then costs no more than
storing them would.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.losses.blockwise import EXCLUDED, gradient_weights, once, similarities
from clustering_jax.typing import Array, Float, Int


def symmetric_log_sums(
    rows: Float[Array, "m d"],
    examples: Int[Array, " m"],
    temperature: float | Float[Array, ""],
    *,
    block: int = 512,
) -> Float[Array, " m"]:
    """`log_sums` if one device has all rows. Arguments, result and errors are the same as there.

    The memory holds [block, block] similarities at a time.
    """
    m = len(rows)
    blocks = -(-m // block)
    size = -(-m // blocks)
    rows, examples = (jnp.pad(x, [(0, blocks * size - m), *[(0, 0)] * (x.ndim - 1)]) for x in (rows, examples))
    temperature = jnp.asarray(temperature, jnp.result_type(jnp.float32, rows, temperature))
    return _log_sums(rows.reshape(blocks, size, -1), examples.reshape(blocks, size), temperature).reshape(-1)[:m]


@jax.custom_vjp
def _log_sums(rows: Array, examples: Array, temperature: Array) -> Array:
    """Log-sums of rows in blocks: [blocks, size, d] and [blocks, size] to [blocks, size]."""

    def visit(i: Array, j: Array, two: bool, running: tuple[Array, Array]) -> tuple[Array, Array]:
        similarity = _block_similarities(rows, examples, temperature, i, j)
        running = _added(running, similarity, i, axis=1)
        return _added(running, similarity, j, axis=0) if two else running

    start = jnp.zeros(examples.shape, temperature.dtype)
    highest, total = _over_pairs(visit, (start + EXCLUDED, start), len(rows))
    return highest + jnp.log(total)


def _forward(rows: Array, examples: Array, temperature: Array) -> tuple[Array, tuple[Array, ...]]:
    rows, temperature = once((rows, temperature))
    sums = _log_sums(rows, examples, temperature)
    return sums, (rows, examples, temperature, sums)


def _backward(residuals: tuple[Array, ...], cotangents: Array) -> tuple[Array, None, Array]:
    rows, examples, temperature, sums = residuals
    wide = rows.astype(temperature.dtype)
    transposed = jnp.swapaxes(wide, 1, 2)
    product = partial(jnp.matmul, precision="highest")

    def visit(i: Array, j: Array, two: bool, gradients: tuple[Array, Array]) -> tuple[Array, Array]:
        of = [(_at(sums, n), _at(cotangents, n)) for n in (i, j)]
        weights = gradient_weights(_block_similarities(rows, examples, temperature, i, j), *of[0], *of[1])
        # Without this barrier, XLA computes the weights again for each product.
        weights = lax.optimization_barrier(weights)
        upright, across = gradients
        upright = _plus(upright, i, product(weights, _at(wide, j)))
        # Transposed, because a product with the transposed weights takes twice as long on CPU.
        return upright, _plus(across, j, product(_at(transposed, i), weights)) if two else across

    upright, across = _over_pairs(visit, (jnp.zeros_like(wide), jnp.zeros_like(transposed)), len(rows))
    gradient = (upright + jnp.swapaxes(across, 1, 2)) / temperature
    # The sums depend only on rows / sqrt(temperature), so the temperature's gradient follows from that of the rows.
    return gradient.astype(rows.dtype), None, -jnp.sum(wide * gradient) / (2 * temperature)


_log_sums.defvjp(_forward, _backward)


def _block_similarities(rows: Array, examples: Array, temperature: Array, i: Array, j: Array) -> Array:
    return similarities(_at(rows, i), _at(examples, i), _at(rows, j), _at(examples, j), temperature)


def _added(running: tuple[Array, Array], similarity: Array, i: Array, axis: int) -> tuple[Array, Array]:
    """Updates the running maximum and sum [blocks, size] of block i with more similarities."""
    before, total = (_at(x, i) for x in running)
    higher = jnp.maximum(before, jnp.max(similarity, axis))
    terms = jnp.sum(jnp.exp(similarity - jnp.expand_dims(higher, axis)), axis)
    updated = higher, total * jnp.exp(before - higher) + terms
    return tuple(lax.dynamic_update_index_in_dim(x, new, i, 0) for x, new in zip(running, updated, strict=True))


def _over_pairs(visit: Callable, state: Any, blocks: int) -> Any:
    """Applies ``state = visit(i, j, two, state)`` to all pairs of blocks i <= j; `two` is whether i and j differ."""

    def row(i: Array, state: Any) -> Any:
        state = visit(i, i, False, state)
        return lax.fori_loop(i + 1, blocks, lambda j, state: visit(i, j, True, state), state)

    return lax.fori_loop(0, blocks, row, state)


def _at(x: Array, i: Array) -> Array:
    return lax.dynamic_index_in_dim(x, i, keepdims=False)


def _plus(x: Array, i: Array, more: Array) -> Array:
    return lax.dynamic_update_index_in_dim(x, _at(x, i) + more, i, 0)
