"""Gradient caching: applies an encoder to a batch chunk by chunk, with the activations of one chunk in memory.

All rows are encoded first. The loss and its gradient are computed from the representations. In the backward pass, each
chunk is encoded again when the gradient passes through it.

References:
  Gao, Zhang, Han and Callan, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, RepL4NLP 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from clustering_jax.typing import Array


def chunked(function: Callable[[Any], Any], size: int) -> Callable[[Any], Any]:
    """Wraps `function` so that it runs on at most `size` rows at a time, with the same values and gradients.

    For a gradient, the memory holds the rows, their outputs and the activations of one chunk, and the computation takes
    one more forward pass. Under `jax.jit` with sharded rows, every device has its part of each chunk if the number of
    chunks divides the number of rows per device. Otherwise XLA moves rows between the devices.

    Args:
      function: maps a tree of arrays [n, ...] to a tree of arrays [n, ...]. Each row of the output must depend only on
        the same row of the input, so batch statistics are not allowed. It may close over parameters that are
        differentiated.
      size: largest number of rows in a chunk; 0 means no limit. All chunks have the same size. The last chunk is
        padded with copies of a row.

    Returns:
      A function of the same arguments and result as `function`.
    """

    def over_chunks(rows: Any) -> Any:
        n = jax.tree.leaves(rows)[0].shape[0]
        # An exported program has a symbolic number of rows; whoever calls it bounds them.
        count = -(-n // size) if isinstance(n, int) else 1
        if count == 1:
            return function(rows)
        # The forward and the backward pass are separate loops, and XLA's CSE does not merge computations across loops.
        of_chunk = jax.checkpoint(function, prevent_cse=False)
        outputs = jax.lax.map(of_chunk, jax.tree.map(lambda x: _split(x, count), rows))
        return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[:n], outputs)

    return over_chunks if size else function


def _split(x: Array, count: int) -> Array:
    """Splits [n, ...] into chunks [count, size, ...]. Each takes every `count`-th row, so it is spread over devices."""
    missing = -len(x) % count
    padded = jnp.pad(x, [(0, missing), *[(0, 0)] * (x.ndim - 1)], mode="edge")
    return padded.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)
