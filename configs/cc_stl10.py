"""CC on STL-10: train + test, 13,000 images, 10 clusters, and 100,000 unlabelled images.

Paper: https://arxiv.org/abs/2009.09687
Expected (NMI / ACC / ARI, published, 1000 epochs): .764 / .850 / .726.
Hours: about 27.6 at a sustained 50 TFLOP/s. This is an estimate from 44 GFLOP per image and step (ResNet34, 224 px,
  two views).
Command: python -m clustering_jax.main --config=configs/cc_stl10.py --workdir=runs/cc_stl10
Prepare the data once (extra [prepare]): python -m clustering_jax.data.images.prepare stl10
The run trains on and scores the same images. Labels are used for scoring only.
An epoch is one pass over the unlabelled images with the instance loss alone, and then one pass over the other images
with both losses.
"""

from clustering_jax.settings import STREAMING, cc


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated images)."""
    return cc(
        variant,
        num_clusters=10,
        data={
            "source": "tfds",
            "name": "stl10",
            "splits": "train+test",
            "tfds_dir": "",
            "label_key": "label",
            **STREAMING,
        },
        unlabelled={"source": "tfds", "name": "stl10", "splits": "unlabelled", "tfds_dir": "", **STREAMING},
        augment={"kind": "natural", "strength": 1.0, "blur": False},
    )
