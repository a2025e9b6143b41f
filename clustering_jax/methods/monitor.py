"""Terms of the log that show whether clusters collapse."""

from __future__ import annotations

import jax.numpy as jnp

from clustering_jax.typing import Array


def occupancy(q: Array, mean: Array | None = None) -> dict[str, Array]:
    """Counts the occupied clusters of a batch and measures the entropy of the mean assignment.

    Args:
      q: soft assignments, [n, k].
      mean: mean assignment, [k]; None is the mean of `q`.

    Returns:
      "occupied", the number of clusters that are the largest entry of some row; "entropy", in nats.
    """
    mean = q.mean(0) if mean is None else mean
    # No scatter: with one, the devices would send each other the labels of all rows.
    occupied = (q.argmax(1)[:, None] == jnp.arange(q.shape[1])).any(0)
    return {
        "occupied": occupied.sum(dtype=jnp.float32),
        "entropy": -jnp.sum(mean * jnp.log(jnp.where(mean > 0, mean, 1.0))),
    }
