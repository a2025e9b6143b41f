"""The losses of contrastive fusion: features of all views together, contrasted with the features of each view."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.losses.blockwise import EXCLUDED
from clustering_jax.losses.checks import checked_batch
from clustering_jax.parallel import axis_index, gather, pmean, psum
from clustering_jax.typing import Array, Bool, Float


def decoupled_contrast(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    temperature: float = 1.0,
    where: Bool[Array, " n"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Contrast of each row of `a` with all rows of `b`, where the positive pair is not in the denominator.

    It is the mean over i of ``-s_ii + log(sum_{j != i} exp s_ij)`` with ``s = a b^T / temperature``. Rows of the same
    view are not compared. The rows are not normalised. All similarities are in memory.

    Args:
      a: [n, d] anchors, usually of norm 1; n >= 2 over all devices.
      b: [n, d] rows to contrast with. Row i belongs to the same example as row i of `a`.
      temperature: > 0.
      where: bool [n] examples to use, or None for all. The result is as if the other examples were not in the batch.
      axis_name: mapped axis over which the batch is split, see `clustering_jax.losses.contrastive`.

    Returns:
      Scalar, which may be negative; log(n - 1) if all rows are equal, 0 if fewer than two examples are used.

    Raises:
      ValueError: unequal shapes, rank other than 2, a batch of 1, not floating point, temperature <= 0, or a `where`
        that is not [n].

    References:
      Wu et al., Self-Weighted Contrastive Fusion for Deep Multi-View Clustering (SCMVC), TMM 2024.
      Yeh et al., Decoupled Contrastive Learning, ECCV 2022: the positive leaves the denominator.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import decoupled_contrast
      >>> a = jnp.eye(4)
      >>> print(f"{decoupled_contrast(a, a):.3f}, {decoupled_contrast(a, a[::-1]):.3f}")  # log 3 - 1, log(e + 2)
      0.099, 1.551
    """
    a, b = checked_batch("decoupled_contrast", axis_name, a, b)
    if not temperature > 0:
        raise ValueError(f"decoupled_contrast: needs temperature > 0, got {temperature}")
    used = jnp.ones(len(a), bool) if where is None else jnp.asarray(where)
    if used.shape != a.shape[:1]:
        raise ValueError(f"decoupled_contrast: needs where [n], got {used.shape} for {a.shape}")
    a, b = (jnp.where(used[:, None], x, 0) for x in (a, b))
    numbers = axis_index(axis_name) * len(a) + jnp.arange(len(a))
    left_out = (numbers[:, None] == gather(numbers, axis_name)) | ~gather(used, axis_name)
    similarity = jnp.matmul(a, gather(b, axis_name).T, precision="highest") / temperature
    negatives = jax.nn.logsumexp(jnp.where(left_out, EXCLUDED, similarity), axis=1)
    losses = negatives - jnp.sum(a * b, axis=1) / temperature
    # A mean over the devices, and not their sum, so that gradients inside of `shard_map` are correct.
    count = pmean(jnp.sum(used, dtype=losses.dtype), axis_name)
    mean = pmean(jnp.sum(losses, where=used), axis_name) / jnp.maximum(count, 1e-30)
    return jnp.where(psum(jnp.sum(used), axis_name) > 1, mean, 0)


def discrepancy_weights(
    h: Float[Array, "n d"],
    views: Sequence[Float[Array, "n d"]],
    *,
    where: Bool[Array, "n v"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, " v"]:
    """Weights of views, which fall with the discrepancy D between a view's features and the features of all views.

    D is the squared maximum mean discrepancy with a linear kernel. That is the squared distance between the mean rows.
    The weights are softmax(-D). They are constants: no gradient flows through them. Devices exchange only sums.

    Args:
      h: [n, d] features of all views together; n >= 2 over all devices.
      views: features of each view, [n, d].
      where: bool [n, views], which rows have which view; None is all rows. A view counts only the rows that have it.
      axis_name: mapped axis over which the batch is split, see `clustering_jax.losses.contrastive`.

    Returns:
      [views], each above 0, with the sum 1. A view that no row has gets 0, unless no row has any view.

    Raises:
      ValueError: unequal shapes, rank other than 2, a batch of 1, not floating point, or a `where` that is not
        [n, views].

    References:
      Wu et al., Self-Weighted Contrastive Fusion for Deep Multi-View Clustering (SCMVC), TMM 2024.
      Gretton et al., A Kernel Two-Sample Test, JMLR 2012, eq. 5: the biased estimate of the discrepancy.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import discrepancy_weights
      >>> h = jnp.eye(2)
      >>> near, far = discrepancy_weights(h, [h, h + 1])
      >>> print(f"{near:.3f}, {far:.3f}")  # D is 0 and 2
      0.881, 0.119
    """
    h, *rows = checked_batch("discrepancy_weights", axis_name, h, *views)
    shape = (len(h), len(rows))
    used = jnp.ones(shape, bool) if where is None else jnp.asarray(where)
    if used.shape != shape:
        raise ValueError(f"discrepancy_weights: needs where [n, views], got {used.shape} for {shape}")
    count = psum(jnp.sum(used, axis=0), axis_name)
    differences = jnp.where(used.T[..., None], jnp.stack(rows) - h, 0)
    means = psum(jnp.sum(differences, axis=1), axis_name) / jnp.maximum(count, 1)[:, None]
    logits = jnp.where(count > 0, -jnp.sum(means**2, axis=1), EXCLUDED)
    return lax.stop_gradient(jax.nn.softmax(logits))
