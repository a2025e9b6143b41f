"""DMIM on your own pairs: a `.npz` or `.mat` with a key for each view, or a file for each view.

Paper: https://ojs.aaai.org/index.php/AAAI/article/view/17076
Expected: no published figure. Look at the clusters, and at the scores without labels in result.json. DMIM is for views
  with shared classes that stronger private classes hide. For other data, k-means on the concatenated views is hard to
  beat.
Minutes: a few for several thousand objects on 2 CPU cores.
Command: python -m clustering_jax.main --config=configs/dmim_arrays.py --workdir=runs/pairs \
  --config.data.path=views.npz --config.num_clusters=12
The keys of the views are view0, view1, ..., or the names in `--config.data.views`. The first view predicts, see
`--config.model.prediction`. Each step uses all rows. With more than about 50,000 rows, use
`--config.model.full_batch=False --config.batch_size=4096`.
The recipe "auto" also trains k-means and TURTLE, and keeps the candidate that the views predict best.
`--config.recipe=published` trains DMIM alone.
"""

from clustering_jax.settings import dmim


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated views)."""
    return dmim(
        variant,
        num_clusters=10,
        recipe="published" if variant else "auto",
        batch_size=0,
        data={
            "source": "multiview_pca",
            "path": "",
            "width": 100,
            "views": "",
            "label_key": "",
            "mask_key": "",
            "scaling": "none",
            "missing": "error",
            "transpose": False,
        },
    )
