"""CC on ImageNet-Dogs: 19,500 training images of 15 synsets.

Paper: https://arxiv.org/abs/2009.09687
Expected (NMI / ACC / ARI, published, 1000 epochs): .445 / .429 / .274.
Hours: about 4.8 at a sustained 50 TFLOP/s, an estimate from 44 GFLOP an image and step (ResNet34, 224 px, two views).
Command: python -m clustering_jax.main --config=configs/cc_imagenet_dogs.py --workdir=runs/cc_imagenet_dogs \
  --config.data.path=DIR
DIR: ImageNet's training folder, a folder per synset; others in it are left alone, and counts are checked.
Trained and scored on the same images; labels are for scoring alone.
"""

from clustering_jax.settings import STREAMING, cc


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated images)."""
    return cc(
        variant,
        num_clusters=15,
        data={
            "source": "folder",
            "path": "",
            "classes": "imagenet_dogs",
            "expected_count": 19500,
            "size": 256,
            "labels_from_folders": True,
            "on_error": "error",
            **STREAMING,
        },
        augment={"kind": "natural", "strength": 1.0, "blur": True},
    )
