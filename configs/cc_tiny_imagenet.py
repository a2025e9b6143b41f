"""CC on Tiny-ImageNet: 100,000 training images, 200 clusters.

Paper: https://arxiv.org/abs/2009.09687
Expected (NMI / ACC / ARI, published, 1000 epochs): .340 / .140 / .071.
Hours: about 24.4 at a sustained 50 TFLOP/s. This is an estimate from 44 GFLOP per image and step (ResNet34, 224 px,
  two views).
Command: python -m clustering_jax.main --config=configs/cc_tiny_imagenet.py --workdir=runs/cc_tiny_imagenet \
  --config.data.path=DIR
DIR is the folder train/ of the data set (train/<synset>/images/*.JPEG). The number of images is checked.
The run trains on and scores the same images. Labels are used for scoring only.
"""

from clustering_jax.settings import STREAMING, cc


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated images)."""
    return cc(
        variant,
        num_clusters=200,
        data={
            "source": "folder",
            "path": "",
            "classes": "tiny_imagenet",
            "expected_count": 100000,
            "size": 64,
            "labels_from_folders": True,
            "on_error": "error",
            **STREAMING,
        },
        augment={"kind": "natural", "strength": 0.5, "blur": False},
    )
