"""Encoders in chunks of a batch: the memory of their activations is that of one chunk.

References:
  Gao, Zhang, Han and Callan, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, RepL4NLP 2021:
    all rows are encoded, the loss and its gradient are taken at the representations, and each chunk is encoded again
    as that gradient passes through it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from clustering_jax.typing import Array


def chunked(function: Callable[[Any], Any], size: int) -> Callable[[Any], Any]:
    """`function` of at most `size` rows at a time, with the same values and gradients; 0 is any number of rows.

    A gradient through it keeps the rows and what `function` makes of them, and the activations of one chunk; it takes
    one more forward pass. Under `jax.jit` with sharded rows every device has its part of each chunk if the number of
    chunks divides the rows of a device; otherwise XLA moves rows between the devices.

    Args:
      function: arrays [n, ...] in any tree to arrays [n, ...]; each row must depend on that row alone, so no batch
        statistics. It may close over parameters that are differentiated.
      size: largest number of rows in a chunk; the chunks are made equal, the last filled up with copies of a row.
    """

    def over_chunks(rows: Any) -> Any:
        n = len(jax.tree.leaves(rows)[0])
        count = -(-n // size)
        if count == 1:
            return function(rows)
        # CSE does not reach from one loop, forward, into the other, backward.
        part = jax.checkpoint(function, prevent_cse=False)
        found = jax.lax.map(part, jax.tree.map(lambda x: _split(x, count), rows))
        return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[:n], found)

    return over_chunks if size else function


def _split(x: Array, count: int) -> Array:
    """[n, ...] as [count, size, ...]: each chunk takes every `count`-th row, as neighbours lie on one device."""
    missing = -len(x) % count
    filled = jnp.pad(x, [(0, missing), *[(0, 0)] * (x.ndim - 1)], mode="edge")
    return filled.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)
