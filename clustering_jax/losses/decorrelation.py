"""Decorrelation of columns."""

from __future__ import annotations

import jax.numpy as jnp

from clustering_jax.losses.checks import checked_batch
from clustering_jax.losses.contrastive import column_cosines
from clustering_jax.typing import Array, Float


def decorrelation(x: Float[Array, "n c"], *, axis_name: str | None = None) -> Float[Array, ""]:
    """Mean squared difference between the cosines of the columns and the identity matrix.

    A column of zeros has cosine 0 with every column, itself included. Devices exchange only sums, [c, c] and [c].

    Args:
      x: [n, c] features, or soft assignments; n >= 2 over all devices.
      axis_name: mapped axis over which the batch is split, see `clustering_jax.losses.contrastive`.

    Returns:
      Scalar from 0 (orthogonal columns) to (c - 1) / c (all columns equal, up to a positive factor).

    Raises:
      ValueError: rank other than 2, a batch of 1, or not floating point.

    References:
      Dong et al., BDCL, IJCNN 2025: the decorrelation of features and of clusters.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import decorrelation
      >>> print(f"{decorrelation(jnp.eye(3)):.3f}, {decorrelation(jnp.ones((3, 4))):.3f}")
      0.000, 0.750
    """
    (x,) = checked_batch("decorrelation", axis_name, x)
    return jnp.mean((column_cosines(x, axis_name) - jnp.eye(x.shape[1])) ** 2)
