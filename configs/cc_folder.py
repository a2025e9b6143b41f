"""CC on a folder of your own photos, labels optional.

Paper: https://arxiv.org/abs/2009.09687
Expected: no published figure; look at the clusters, and at the label-free scores in result.json.
Hours: count 12 GFLOP an image and step at 128 px (ResNet34, two views): 10,000 photos for 300 epochs take
  about 12 minutes at a sustained 50 TFLOP/s, and about 4 days on two CPU cores: there, choose a smaller
  --config.model.image_size=32 --config.model.backbone=resnet18 --config.epochs=50.
Command: python -m clustering_jax.main --config=configs/cc_folder.py --workdir=runs/photos \
  --config.data.path=photos/ --config.num_clusters=12
With one folder per class and --config.data.labels_from_folders=True the classes score the result, and nothing else.
"""

from clustering_jax.settings import STREAMING, cc


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated images)."""
    return cc(
        variant,
        num_clusters=10,
        epochs=300,
        data={
            "source": "folder",
            "path": "",
            "size": 160,
            "labels_from_folders": False,
            "on_error": "skip",
            **STREAMING,
        },
        model={"image_size": 128},
        augment={"kind": "natural", "strength": 0.5, "blur": True},
    )
