"""Agreement of two assignments of the same rows."""

from __future__ import annotations

import jax.numpy as jnp

from clustering_jax.losses.checks import checked_batch
from clustering_jax.parallel import pmean
from clustering_jax.typing import Array, Float

_FLOOR = 1e-30


def consistency(p: Float[Array, "n k"], q: Float[Array, "n k"], *, axis_name: str | None = None) -> Float[Array, ""]:
    """Negative mean log probability that both assignments choose the same cluster: ``-mean_i log <p_i, q_i>``.

    A probability below 1e-30 counts as 1e-30, with gradient 0.

    Args:
      p: [n, k] soft assignments of the first modality, each row on the simplex; n >= 2 over all devices.
      q: [n, k] soft assignments of the second modality. Row i belongs to the same example as row i of `p`.
      axis_name: mapped axis over which the batch is split, see `clustering_jax.losses.contrastive`.

    Returns:
      Scalar >= 0. It is 0 if both assign each row to the same cluster with probability 1.

    Raises:
      ValueError: unequal shapes, rank other than 2, a batch of 1, or not floating point.

    References:
      Li et al., Image Clustering with External Guidance (TAC), ICML 2024: the consistency loss.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import consistency
      >>> p = jnp.array([[1.0, 0.0], [0.5, 0.5]])
      >>> print(f"{consistency(p, p):.3f}")  # (log 1 + log 2) / 2
      0.347
    """
    p, q = checked_batch("consistency", axis_name, p, q)
    return pmean(-jnp.mean(jnp.log(jnp.maximum(jnp.sum(p * q, axis=1), _FLOOR))), axis_name)
