"""Losses: pure functions of arrays, each the mean over the global batch."""

from clustering_jax.losses.contrastive import cluster_contrast, imbalance, normalize, nt_xent

__all__ = ["cluster_contrast", "imbalance", "normalize", "nt_xent"]
