"""CC on the 60,000 images of CIFAR-10 at 32 px, then the two phases of SCAN: about ten minutes on one H100.

Paper: https://arxiv.org/abs/2009.09687; the phases of SCAN: https://arxiv.org/abs/2005.12320
Expected (published, at 1,000 epochs, NMI / ACC / ARI): .705 / .790 / .637 for CC, .797 / .883 / .772 for SCAN.
Minutes: about six on one H200, for 150 epochs of CC and 60 epochs of SCAN; days on 2 CPU cores.
Command: python -m clustering_jax.main --config=configs/cc_cifar10_fast.py --workdir=runs/cifar10_fast
The network is a ResNet18 with a 3x3 stem in bfloat16. The optimiser is Adam with a cosine schedule. The crops are those
of the pretext task of SCAN. The run trains on and scores the train and test images together. Labels are used for
scoring only.
"""

from clustering_jax.settings import STREAMING, cc


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated images)."""
    return cc(
        variant,
        num_clusters=10,
        epochs=150,
        batch_size=512,
        data={
            "source": "tfds",
            "name": "cifar10",
            "splits": "train+test",
            "tfds_dir": "",
            "label_key": "label",
            **STREAMING,
        },
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
