"""Losses, and the functions that they need. All are pure functions of arrays of the global batch."""

from clustering_jax.losses.agreement import consistency
from clustering_jax.losses.boost import labelled_nt_xent
from clustering_jax.losses.contrastive import cluster_contrast, imbalance, normalize, nt_xent
from clustering_jax.losses.decorrelation import decorrelation
from clustering_jax.losses.fusion import decoupled_contrast, discrepancy_weights
from clustering_jax.losses.information import gaussian_kl, mutual_information, posterior_skl, prior_kl
from clustering_jax.losses.matching import balanced_labels, contingency, maximum_matching
from clustering_jax.losses.pseudo_label import pseudo_label_loss
from clustering_jax.losses.self_label import self_label_loss
from clustering_jax.losses.variational import info_nce, jsd, nwj

__all__ = [
    "balanced_labels",
    "cluster_contrast",
    "consistency",
    "contingency",
    "decorrelation",
    "decoupled_contrast",
    "discrepancy_weights",
    "gaussian_kl",
    "imbalance",
    "info_nce",
    "jsd",
    "labelled_nt_xent",
    "maximum_matching",
    "mutual_information",
    "normalize",
    "nt_xent",
    "nwj",
    "posterior_skl",
    "prior_kl",
    "pseudo_label_loss",
    "self_label_loss",
]
