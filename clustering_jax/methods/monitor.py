"""What the log tells of the assignments in a batch."""

from __future__ import annotations

import jax.numpy as jnp

from clustering_jax.typing import Array


def occupancy(q: Array, mean: Array | None = None) -> dict[str, Array]:
    """Clusters that are some row's largest in `q` [n, k], and the entropy of `mean` [k], by default that of `q`."""
    mean = q.mean(0) if mean is None else mean
    # Not a scatter, for which devices would send each other the labels of all rows.
    occupied = (q.argmax(1)[:, None] == jnp.arange(q.shape[1])).any(0)
    return {
        "occupied": occupied.sum(dtype=jnp.float32),
        "entropy": -jnp.sum(mean * jnp.log(jnp.where(mean > 0, mean, 1.0))),
    }
