"""CMMC on three views computed from scikit-learn's 1,797 handwritten digits: nothing to download.

Paper: https://arxiv.org/abs/2106.11193
Measured: ACC .722 (seed 0), below the .792 of k-means on the views side by side.
Minutes: three to four on 2 CPU cores.
Command: python -m clustering_jax.main --config=configs/cmmc_digits.py --workdir=runs/digits_views
Trained and scored on all objects; labels are for scoring alone.
"""

from clustering_jax.settings import cmmc


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps of each stage on generated views)."""
    return cmmc(variant, num_clusters=10, kmeans_baseline=True, data={"source": "digits_views"})
