"""Cross-entropy of soft assignments with hard pseudo-labels."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from clustering_jax.losses.contrastive import _checked
from clustering_jax.parallel import psum
from clustering_jax.typing import Array, Float, Int


def pseudo_label_loss(
    p: Float[Array, "n k"],
    labels: Int[Array, " n"],
    *,
    double_softmax: bool = False,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Cross-entropy ``-log p_iy`` of assignments that are soft-maxed already, the mean over rows that count.

    The gradient is that of the whole batch, as the docstring of `clustering_jax.losses.contrastive` describes.

    Args:
      p: [n, k] soft assignments, rows on the simplex. Below the smallest normal float (1.2e-38 in float32) an
        entry counts as that, with gradient 0.
      labels: [n] integers < k; a row with a negative label does not count, and may hold anything. A label of k
        or more gives NaN.
      double_softmax: `p` is passed through softmax once more, ``-log softmax(p)_iy``, as in the authors' codes
        of CMMC and DMIM: a milder loss, never below log(1 + (k - 1) / e).
      axis_name: mapped axis over which the batch is split; devices may hold unequal numbers of rows that count.

    Returns:
      Scalar >= 0; 0 if no row counts.

    Raises:
      ValueError: `p` is not floating point of rank 2, or `labels` not integers [n].

    References:
      Mao et al., Deep Mutual Information Maximin for Cross-Modal Clustering, AAAI 2021: L3 is half of this.
    """
    (p,) = _checked("pseudo_label_loss", p)
    if jnp.shape(labels) != p.shape[:1] or not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        got = f"{jnp.result_type(labels)} {jnp.shape(labels)}"
        raise ValueError(f"pseudo_label_loss: needs integer labels [n], got {got} for {p.shape}")
    labels = jnp.asarray(labels)
    counts = labels >= 0
    p = jnp.where(counts[:, None], p, 1)
    log_p = jax.nn.log_softmax(p) if double_softmax else jnp.log(jnp.maximum(p, jnp.finfo(p.dtype).tiny))
    rows = -jnp.take_along_axis(log_p, jnp.where(counts, labels, 0)[:, None], axis=1)[:, 0]
    total, number = psum(jnp.sum(rows, where=counts), axis_name), psum(jnp.sum(counts), axis_name)
    return total / jnp.maximum(number, 1)
