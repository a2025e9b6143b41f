"""CMMC on your own views of the same objects: a `.npz` or `.mat` with a key for each view, or a file for each view.

Paper: https://arxiv.org/abs/2106.11193
Expected: no published figure; look at the clusters, and at the label-free scores in result.json.
Minutes: a few for some thousand objects on 2 CPU cores.
Command: python -m clustering_jax.main --config=configs/cmmc_arrays.py --workdir=runs/views \
  --config.data.path=views.npz --config.num_clusters=7
Views are view0, view1, ... or as `--config.data.views` names them; `mask_key` names a mask [n, views] of those
that are there, `--config.data.missing=nan` takes rows of NaN for missing. Each view's columns are scaled to [0, 1].
The recipe "auto" trains k-means and TURTLE too and keeps what the views predict best; `--config.recipe=published`
trains CMMC alone.
"""

from clustering_jax.settings import views


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps of each stage on generated views)."""
    return views(variant, num_clusters=10)
