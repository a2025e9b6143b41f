"""Cross-entropy of soft assignments with hard pseudo-labels."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from clustering_jax.losses.checks import checked
from clustering_jax.parallel import psum
from clustering_jax.typing import Array, Float, Int


def pseudo_label_loss(
    p: Float[Array, "n k"],
    labels: Int[Array, " n"],
    *,
    double_softmax: bool = False,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Cross-entropy ``-log p_iy`` of soft assignments with hard labels y, the mean over the rows that have a label.

    The loss and its gradient are those of the global batch, see `clustering_jax.losses.contrastive`.

    Args:
      p: [n, k] soft assignments, each row on the simplex. An entry below the smallest normal float (1.2e-38 in float32)
        counts as this number, with gradient 0.
      labels: int [n] in [0, k), or negative for a row without a label; such a row may have any values. A label of k or
        more gives NaN.
      double_softmax: if true, `p` passes through softmax a second time, ``-log softmax(p)_iy``, as in the authors' code
        of CMMC and DMIM. The loss is then flatter, and never below log(1 + (k - 1) / e).
      axis_name: mapped axis over which the batch is split. Devices may have different numbers of rows with a label.

    Returns:
      Scalar >= 0; 0 if no row has a label.

    Raises:
      ValueError: `p` is not floating point of rank 2, or `labels` not integers [n].

    References:
      Mao et al., Deep Mutual Information Maximin for Cross-Modal Clustering, AAAI 2021: L3 is half of this.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import pseudo_label_loss
      >>> p = jnp.array([[0.5, 0.5], [0.1, 0.9]])
      >>> print(f"{pseudo_label_loss(p, jnp.array([0, -1])):.3f}")  # log 2
      0.693
    """
    (p,) = checked("pseudo_label_loss", p)
    if jnp.shape(labels) != p.shape[:1] or not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        got = f"{jnp.result_type(labels)} {jnp.shape(labels)}"
        raise ValueError(f"pseudo_label_loss: needs integer labels [n], got {got} for {p.shape}")
    labels = jnp.asarray(labels)
    labelled = labels >= 0
    p = jnp.where(labelled[:, None], p, 1)
    log_p = jax.nn.log_softmax(p) if double_softmax else jnp.log(jnp.maximum(p, jnp.finfo(p.dtype).tiny))
    rows = -jnp.take_along_axis(log_p, jnp.where(labelled, labels, 0)[:, None], axis=1)[:, 0]
    total, number = psum(jnp.sum(rows, where=labelled), axis_name), psum(jnp.sum(labelled), axis_name)
    return total / jnp.maximum(number, 1)
