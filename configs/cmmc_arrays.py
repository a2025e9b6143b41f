"""CMMC on your own views of the same objects: a `.npz` or `.mat` with a key for each view, or a file for each view.

Paper: https://arxiv.org/abs/2106.11193
Expected: no published figure. Look at the clusters, and at the scores without labels in result.json.
Minutes: a few for several thousand objects on 2 CPU cores.
Command: python -m clustering_jax.main --config=configs/cmmc_arrays.py --workdir=runs/views \
  --config.data.path=views.npz --config.num_clusters=7
The keys of the views are view0, view1, ..., or the names in `--config.data.views`. `--config.data.mask_key` names a
mask [n, views] that is 1 where a view is present. `--config.data.missing=nan` treats rows of NaN as missing. The
columns of each view are scaled to [0, 1].
The recipe "auto" also trains k-means and TURTLE, and keeps the candidate that the views predict best.
`--config.recipe=published` trains CMMC alone.
"""

from clustering_jax.settings import views


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps of each stage on generated views)."""
    return views(variant, num_clusters=10)
