"""DMIM on your own pairs: a `.npz` or `.mat` with a key for each view, or a file for each view.

Paper: https://ojs.aaai.org/index.php/AAAI/article/view/17076
Expected: no published figure; look at the clusters, and at the label-free scores in result.json. DMIM is for classes
  that views share under stronger ones that they don't; elsewhere k-means on the views side by side is hard to beat.
Minutes: a few for some thousand objects on 2 CPU cores.
Command: python -m clustering_jax.main --config=configs/dmim_arrays.py --workdir=runs/pairs \
  --config.data.path=views.npz --config.num_clusters=12
Views are view0, view1, ... or as `--config.data.views` names them; the first one predicts, see `prediction`. A step
takes all rows: with more than some 50,000, --config.model.full_batch=False --config.batch_size=4096.
The recipe "auto" trains k-means and TURTLE too and keeps what the views predict best; `--config.recipe=published`
trains DMIM alone.
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
