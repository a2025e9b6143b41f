"""The divergence of the sizes of clusters from the sizes that are expected."""

from __future__ import annotations

import jax.numpy as jnp

from clustering_jax.typing import Array, Float


def divergence_from_prior(mean: Float[Array, " k"], log_prior: Float[Array, " k"]) -> Float[Array, ""]:
    """KL divergence of a mean assignment m from a prior: ``sum_j m_j (log m_j - log_prior_j)``, in nats.

    The value and the gradient are finite: for an empty cluster, m_j log m_j and its derivative count as 0.

    Args:
      mean: [k] mean assignment, >= 0 with the sum 1.
      log_prior: [k] logarithms of the expected shares of the clusters, finite.

    Returns:
      Scalar >= 0 up to rounding; 0 if the mean is the prior.
    """
    return jnp.sum(mean * (jnp.log(jnp.where(mean > 0, mean, 1.0)) - log_prior))
