"""TURTLE on the features of several encoders: a `.npz` or `.mat` file with a key for each, or one file for each.

Paper: https://arxiv.org/abs/2406.07236
Expected (ACC, published, CLIP ViT-L/14 and DINOv2 ViT-g/14): CIFAR-10 .995, CIFAR-100 .891, ImageNet .729.
Minutes: about two for one seed with 3,000 steps, 5,000 rows and 384 columns in total, on 2 CPU cores (an estimate).
Command: python -m clustering_jax.main --config=configs/turtle_arrays.py --workdir=runs/turtle \
  --config.data.path=features.npz --config.num_clusters=10 --config.num_seeds=10
The keys of the feature spaces are view0, view1, ..., or the names in `--config.data.views`. The spaces may have
different widths and scales. `--config.data.mask_key` names a mask [n, spaces] that is 1 where a row is present.
"""

from clustering_jax.settings import turtle


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated features)."""
    return turtle(
        variant,
        num_clusters=10,
        data={
            "source": "multiview",
            "path": "",
            "views": "",
            "label_key": "",
            "mask_key": "",
            "scaling": "none",
            "missing": "error",
            "transpose": False,
        },
    )
