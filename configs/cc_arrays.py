"""CC on your own array of images, `.npy` or `.npz`: [n, h, w] or [n, h, w, 1 or 3], uint8 or floats in [0, 1].

Paper: https://arxiv.org/abs/2009.09687
Expected: no published figure. Look at the clusters, and at the scores without labels in result.json.
Hours: .7 (42 minutes) for 10,000 images on two CPU cores, at about .3 GFLOP per image and step (ResNet18, 32 px, two
  views). For photos, a pretrained encoder takes minutes: --config=photos.
Command: python -m clustering_jax.main --config=configs/cc_arrays.py --workdir=runs/arrays \
  --config.data.path=images.npz --config.num_clusters=12
For grey images of digits, letters or signs, --config.augment.kind=digits neither mirrors nor crops them.
"""

from clustering_jax.settings import cc


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated images)."""
    return cc(
        variant,
        num_clusters=10,
        epochs=100,
        batch_size=128,
        data={"source": "arrays", "path": "", "image_key": "", "label_key": ""},
        model={"backbone": "resnet18", "image_size": 32},
    )
