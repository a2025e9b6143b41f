"""The losses of BDCL (Dong et al., IJCNN 2025), which replace the contrast of CMMC by `model.objective`."""

from __future__ import annotations

import jax.numpy as jnp

from clustering_jax.losses import consistency, decorrelation, imbalance, nt_xent
from clustering_jax.methods.cmmc.network import Outputs
from clustering_jax.methods.views import fill_missing, view_pairs
from clustering_jax.typing import Array

BALANCE = 2.0


def bdcl_losses(
    outputs: Outputs,
    masks: list[Array | None],
    *,
    feature_temperature: float,
    pair_weight: float,
    decorrelation_weight: float,
    log_prior: Array | None = None,
    weights: Array | None = None,
) -> dict[str, Array]:
    """Contrast of features, agreement of assignments, decorrelation of columns, and balance; without reconstruction.

    Args:
      outputs: outputs of the network for all views, with `noisy`.
      masks: the mask of each view, see `view_masks`.
      feature_temperature: see `CMMC`.
      pair_weight: see `CMMC`.
      decorrelation_weight: see `CMMC`.
      log_prior: [k] logarithms of the expected shares of the clusters; None for equal shares.
      weights: weight of each view, [views]; contrast and agreement of a pair have the product of its two. None is 1.

    Returns:
      The terms "feature", "agreement", "decorrelation" and "imbalance", with their weights.
    """
    feature = agreement = apart = balance = jnp.zeros(())
    for v, w, mask, weight in view_pairs(masks, weights):
        feature += weight * nt_xent(outputs.h[v], outputs.h[w], temperature=feature_temperature, where=mask)
        pairs = ((outputs.q[v], outputs.q[w]), (outputs.noisy[v], outputs.q[w]))
        agreement += weight * sum((_consistency(p, q, mask) for p, q in pairs), start=jnp.zeros(())) / 2
    for z, q, mask in zip(outputs.z, outputs.q, masks, strict=True):
        # Rows of zeros change neither the cosine nor the sum of a column.
        z, q = (fill_missing(x, mask) for x in (z, q))
        apart += decorrelation(z) + decorrelation(q)
        balance += imbalance(q, log_prior=log_prior)
    return {
        "feature": pair_weight * feature,
        "agreement": pair_weight * agreement,
        "decorrelation": decorrelation_weight * apart,
        "imbalance": BALANCE * balance,
    }


def _consistency(p: Array, q: Array, mask: Array | None) -> Array:
    """`consistency` of the rows that have both views."""
    if mask is None:
        return consistency(p, q)
    # Rows that agree for certain add nothing to the sum.
    certain = jnp.eye(p.shape[1])[0]
    p, q = (jnp.where(mask[:, None], x, certain) for x in (p, q))
    return consistency(p, q) * len(mask) / jnp.maximum(mask.sum(), 1)
