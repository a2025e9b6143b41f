"""CC on your own images of up to 96 px, an array or a folder, then the two phases of SCAN.

Paper: https://arxiv.org/abs/2009.09687; the phases of SCAN: https://arxiv.org/abs/2005.12320
Expected: no published figure. On CIFAR-10's 60,000 images, cc_cifar10_fast has ACC .60 with this recipe.
Minutes: about one for 10,000 images at 32 px on one H200, estimated from the 41,800 (CC), 33,700 and 51,700 images per
  second of cc_cifar10_fast. Hours on 2 CPU cores: about 3 for 10,000 images at 32 px with
  --config.model.width=16 --config.model.dtype=float32 --config.epochs=50, estimated from the number of operations.
Command: python -m clustering_jax.main --config=configs/cc_small_images.py --workdir=runs/images \
  --config.data.path=images.npz --config.num_clusters=12
The variant is "arrays" (the default, a .npy or .npz file) or "folder". With ",smoke", as in folder,smoke, it is the
smoke run. For images of 64 or 96 px set --config.model.image_size, and for a folder also --config.data.size. This takes
4 or 9 times as long. Labels are optional and used for scoring only: --config.data.label_key=NAME, or
--config.data.labels_from_folders=True.
"""

from clustering_jax.settings import STREAMING, cc, split_variant

SOURCES = {
    "arrays": {"source": "arrays", "path": "", "image_key": "", "label_key": ""},
    "folder": {
        "source": "folder",
        "path": "",
        "size": 40,
        "labels_from_folders": False,
        "on_error": "skip",
        **STREAMING,
    },
}


def get_config(variant: str = ""):
    """`variant`: arrays or folder; "smoke" or "folder,smoke" is two steps on generated images."""
    name, smoke = split_variant(variant, SOURCES)
    return cc(
        smoke,
        num_clusters=10,
        epochs=150,
        data=SOURCES[name],
        model={
            "backbone": "resnet18",
            "stem": "small",
            "image_size": 32,
            "dtype": "bfloat16",
            "refine": "scan,selflabel",
            "scan_epochs": 20,
            "selflabel_epochs": 40,
        },
        augment={"kind": "natural", "strength": 0.5, "blur": False, "crop_scale": (0.2, 1.0)},
        optimizer={"learning_rate": 1e-3, "schedule": "cosine", "warmup_steps": 200},
        run={"log_every": 64, "evaluate_every": 10, "checkpoint_every": 50},
    )
