"""CC on a folder of your own photos. Labels are optional.

Paper: https://arxiv.org/abs/2009.09687
Expected: no published figure. Look at the clusters, and at the scores without labels in result.json.
Hours: a step takes about 12 GFLOP per image at 128 px (ResNet34, two views). For 10,000 photos and 300 epochs this is
  about 12 minutes at a sustained 50 TFLOP/s, and about 4 days on two CPU cores. On CPUs, use smaller settings:
  --config.model.image_size=32 --config.model.backbone=resnet18 --config.epochs=50.
Command: python -m clustering_jax.main --config=configs/cc_folder.py --workdir=runs/photos \
  --config.data.path=photos/ --config.num_clusters=12
If the photos are in one folder per class, --config.data.labels_from_folders=True uses the classes to score the result,
and for nothing else. For scans of digits, letters or signs, --config.augment.kind=digits neither mirrors nor crops.
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
