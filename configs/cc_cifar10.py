"""CC on CIFAR-10: train + test, 60,000 images, 10 clusters.

Paper: https://arxiv.org/abs/2009.09687
Expected (NMI / ACC / ARI, published, 1000 epochs): .705 / .790 / .637.
Hours: about 14.7 at a sustained 50 TFLOP/s. This is an estimate from 44 GFLOP per image and step (ResNet34, 224 px,
  two views).
Command: python -m clustering_jax.main --config=configs/cc_cifar10.py --workdir=runs/cc_cifar10
Prepare the data once (extra [prepare]): python -m clustering_jax.data.images.prepare cifar10
The run trains on and scores the same images. Labels are used for scoring only.
"""

from clustering_jax.settings import STREAMING, cc


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated images)."""
    return cc(
        variant,
        num_clusters=10,
        data={
            "source": "tfds",
            "name": "cifar10",
            "splits": "train+test",
            "tfds_dir": "",
            "label_key": "label",
            **STREAMING,
        },
        augment={"kind": "natural", "strength": 0.5, "blur": False},
    )
