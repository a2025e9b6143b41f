"""Clusters of your own objects in several views: k-means, TURTLE and, for many rows, CMMC; one is kept without labels.

Paper: https://arxiv.org/abs/2106.11193 (CMMC), https://arxiv.org/abs/2406.07236 (TURTLE)
Expected: no published figure; never far below k-means, see docs/results.md.
Minutes: one or two for up to 2,000 objects on 2 CPU cores; with more, those of CMMC are added.
Command: python -m clustering_jax.main --config=configs/views.py --workdir=runs/views \
  --config.data.path=views.npz --config.num_clusters=7
Views are as for configs/cmmc_arrays.py, whose keys this config has. The final table shows each candidate with its
agreement: how well each view predicts the clusters, without labels.
"""

from clustering_jax.settings import views


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps of each stage on generated views, CMMC alone)."""
    return views(variant, num_clusters=10)
