"""CC on ImageNet-Dogs: 19,500 training images of 15 synsets.

Paper: https://arxiv.org/abs/2009.09687
Expected (NMI / ACC / ARI, published, 1000 epochs): .445 / .429 / .274.
Hours: about 4.8 at a sustained 50 TFLOP/s. This is an estimate from 44 GFLOP per image and step (ResNet34, 224 px,
  two views).
Command: python -m clustering_jax.main --config=configs/cc_imagenet_dogs.py --workdir=runs/cc_imagenet_dogs \
  --config.data.path=DIR
DIR is the training folder of ImageNet, with one folder per synset. Other synsets in it are ignored, and the number of
images is checked.
The run trains on and scores the same images. Labels are used for scoring only.
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
