"""Defaults that the files in `configs/` change.

A config is a ConfigDict: what is listed here can be set on the command line, ``--config.batch_size=128``, and a name
that is not is refused with the nearest one.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from clustering_jax.errors import UserError

SMOKE = "smoke"


def cc(variant: str = "", **changes: Any) -> ConfigDict:
    """CC as published, for `configs/cc_*.py`.

    Args:
      variant: "" or "smoke": two steps on small generated images, to see that everything runs.
      changes: what the config changes. `model`, `optimizer` and `run` are merged into the defaults; other groups
        replace them.

    Raises:
      UserError: an unknown variant.
    """
    config = ConfigDict(
        {
            "method": "cc",
            "seed": 0,
            "num_clusters": 10,
            "batch_size": 256,
            "epochs": 1000,
            # The authors' released checkpoint (.tar) to start from.
            "init_from": "",
            # ACC, NMI, ... of k-means on the raw pixels beside the final scores.
            "kmeans_baseline": False,
            "data": {},
            # A second stream without labels, passed over before each epoch with the instance loss alone (STL-10).
            "unlabelled": {},
            "model": {
                "backbone": "resnet34",
                "stem": "imagenet",
                "width": 64,
                "image_size": 224,
                "instance_dim": 128,
                "instance_temperature": 0.5,
                "cluster_temperature": 1.0,
                "dtype": "float32",
                "average_decay": 0.0,
            },
            "augment": {"kind": "natural", "strength": 0.5, "blur": False},
            "optimizer": {
                "learning_rate": 3e-4,
                "schedule": "constant",
                "warmup_steps": 0,
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-8,
                "weight_decay": 0.0,
                "clip_norm": 0.0,
            },
            "run": {
                "log_every": 50,  # steps
                "evaluate_every": 10,  # epochs; 0 is only at the end
                "checkpoint_every": 10,  # epochs; 0 is only at the end and when interrupted
                "keep": 2,  # checkpoints
                "resident_gib": 4.0,  # larger data sets stay on the host
            },
        }
    )
    for name, value in changes.items():
        if name in ("model", "optimizer", "run"):
            config[name].update(value)
        else:
            config[name] = ConfigDict(value) if isinstance(value, dict) else value
    return _smoke(config) if _known(variant) else config


def _known(variant: str) -> bool:
    if variant not in ("", SMOKE):
        raise UserError(f"unknown variant ':{variant}': only ':{SMOKE}'")
    return variant == SMOKE


def _smoke(config: ConfigDict) -> ConfigDict:
    config.batch_size, config.epochs = max(8, config.num_clusters), 1
    config.model.image_size = min(32, config.model.image_size)
    config.run.log_every = 1
    generated = {"source": "synthetic", "size": 32, "num_clusters": config.num_clusters}
    config.data = ConfigDict({**generated, "n": 2 * config.batch_size})
    if config.unlabelled:
        config.unlabelled = ConfigDict({**generated, "n": 2 * config.batch_size, "seed": 1})
    return config
