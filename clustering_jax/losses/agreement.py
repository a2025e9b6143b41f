"""Agreement of two assignments of the same rows."""

from __future__ import annotations

import jax.numpy as jnp

from clustering_jax.losses.contrastive import _checked_batch
from clustering_jax.parallel import pmean
from clustering_jax.typing import Array, Float

_FLOOR = 1e-30


def consistency(p: Float[Array, "n k"], q: Float[Array, "n k"], *, axis_name: str | None = None) -> Float[Array, ""]:
    """Minus the mean logarithm of the chance that both assign a row to the same cluster: ``-mean log <p_i, q_i>``.

    Rows without overlap count as 1e-30; their gradient is 0.

    Args:
      p: [n, k] soft assignments of one modality, rows on the simplex; n >= 2 over all devices.
      q: [n, k] those of the other, row i of the same example.
      axis_name: mapped axis over which the batch is split, see the docstring of `clustering_jax.losses.contrastive`.

    Returns:
      Scalar >= 0; 0 where both are certain of the same cluster in every row.

    Raises:
      ValueError: unequal shapes, rank other than 2, a batch of 1, or not floating point.

    References:
      Li et al., Image Clustering with External Guidance (TAC), ICML 2024: the consistency loss.
    """
    p, q = _checked_batch("consistency", axis_name, p, q)
    return pmean(-jnp.mean(jnp.log(jnp.maximum(jnp.sum(p * q, axis=1), _FLOOR))), axis_name)
