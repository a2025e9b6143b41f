"""Defaults that the files in `configs/` change.

A config is a ConfigDict: what is listed here can be set on the command line, ``--config.batch_size=128``, and a name
that is not is refused with the nearest one.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from clustering_jax.errors import UserError

SMOKE = "smoke"


ADAM = {
    "learning_rate": 3e-4,
    "schedule": "constant",
    "warmup_steps": 0,
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
}


RUN = {
    "log_every": 50,  # steps
    "evaluate_every": 10,  # epochs; 0 is only at the end
    "checkpoint_every": 10,  # epochs; 0 is only at the end and when interrupted
    "keep": 2,  # checkpoints
    "resident_gib": 4.0,  # larger data sets stay on the host
}


# Of the sources "folder" and "tfds", for sets larger than the memory: docs/data.md.
STREAMING = {
    "streaming": False,  # images are read when a batch wants them
    "shuffle_block": 0,  # rows read side by side; 0 is a full shuffle
    "shuffle_window": 16,  # blocks mixed at a time
}


EMBEDDINGS = {
    "source": "embeddings",
    "path": "",
    "split": "train",
    "image_key": "image",
    "label_key": "",
    "train_key": "",
    "nouns": "",
    "noun_key": "nouns",
    "word_key": "noun_words",
}


def _defaults(method: str, **groups: Any) -> dict[str, Any]:
    """What every config has, and the method's own."""
    return {
        "method": method,
        "seed": 0,
        # Runs of seeds seed, seed + 1, ... trained side by side; one is kept, chosen without labels.
        "num_seeds": 1,
        "num_clusters": 10,  # 0 (or auto): chosen in this range without labels, see `choose`
        "cluster_range": (2, 30),
        "batch_size": 256,  # 0 is all rows
        "epochs": 1000,
        # The authors' released checkpoint to start from.
        "init_from": "",
        # ACC, NMI, ... of k-means on the raw pixels or views beside the final scores.
        "kmeans_baseline": False,
        "data": {},
        # What is scored and assigned, if not the data trained on: another split, say.
        "scored": {},
        # CC: a second stream without labels, passed over before each epoch with the instance loss alone (STL-10).
        "unlabelled": {},
        "model": {},
        "optimizer": dict(ADAM),
        "run": dict(RUN),
        **groups,
    }


MERGED = ("model", "optimizer", "run", "embed")


def _changed(defaults: dict[str, Any], changes: dict[str, Any]) -> ConfigDict:
    """The groups in `MERGED` are merged into the defaults; others replace them."""
    config = ConfigDict(defaults)
    for name, value in changes.items():
        if name in MERGED:
            config[name].update(value)
        else:
            config[name] = ConfigDict(value) if isinstance(value, dict) else value
    return config


def new_config(method: str, changes: dict[str, Any], **defaults: Any) -> ConfigDict:
    """The config of a method: `changes` on what every config has and on the method's own `defaults`."""
    return _changed(_defaults(method, **defaults), changes)


def cc(variant: str = "", **changes: Any) -> ConfigDict:
    """CC as published, for `configs/cc_*.py`.

    Args:
      variant: "" or "smoke": two steps on small generated images, to see that everything runs.
      changes: what the config changes, see `_changed`.

    Raises:
      UserError: an unknown variant.
    """
    model = {
        "backbone": "resnet34",
        "stem": "imagenet",
        "width": 64,
        "image_size": 224,
        "instance_dim": 128,
        "instance_temperature": 0.5,
        "cluster_temperature": 1.0,
        "dtype": "float32",
        "remat": False,
        "average_decay": 0.0,
        "ten_crop": False,
        "refine": "none",
        "scan_epochs": 50,
        "scan_neighbours": 20,
        "scan_entropy_weight": 5.0,
        "selflabel_epochs": 200,
        "selflabel_threshold": 0.99,
        "refine_learning_rate": 1e-4,
        "refine_weight_decay": 1e-4,
    }
    augment = {"kind": "natural", "strength": 0.5, "blur": False}
    config = _changed(_defaults("cc", model=model, augment=augment), changes)
    return _smoke(config) if _known(variant) else config


def cmmc(variant: str = "", **changes: Any) -> ConfigDict:
    """CMMC as in the authors' code, for `configs/cmmc_*.py`; `epochs` is the length of the contrastive stage.

    Args:
      variant: "" or "smoke": two steps of each stage on small generated views.
      changes: what the config changes, see `_changed`.

    Raises:
      UserError: an unknown variant.
    """
    model = {
        "hidden": (500, 500, 2000),
        "latent_dim": 512,
        "feature_dim": 128,
        "feature_temperature": 0.5,
        "label_temperature": 1.0,
        "reconstruction_epochs": 200,
        "matching_steps": 50,
        "kmeans_restarts": 100,
        "pseudo_labels_of": "features",
        "chunk": 0,
        "double_softmax": True,
        "entropy_per_pair": True,
        "dtype": "float32",
    }
    run = {**RUN, "evaluate_every": 0, "checkpoint_every": 50}
    config = _changed(_defaults("cmmc", epochs=50, model=model, run=run), changes)
    if _known(variant):
        config.batch_size, config.epochs = max(8, config.num_clusters), 1
        config.model.update({"reconstruction_epochs": 1, "matching_steps": 2, "kmeans_restarts": 2})
        config.run.log_every = 1
        config.data = ConfigDict({"source": "planted", "n": 2 * config.batch_size})
    return config


def dmim(variant: str = "", **changes: Any) -> ConfigDict:
    """DMIM as in the authors' demonstration, for `configs/dmim_*.py`: each epoch is one step on all rows.

    Args:
      variant: "" or "smoke": two steps on small generated views.
      changes: what the config changes, see `_changed`.

    Raises:
      UserError: an unknown variant.
    """
    model = {
        "over_clusters": 10,
        "cluster_weight": 1.0,
        "over_weight": 1.0,
        "superfluous_weight": 1.0,
        "balance_weight": 0.5,
        "superfluous": "prior",
        "heads": "h",
        "symmetrize": True,
        "balanced": "first",
        "double_softmax": True,
        "power": 10.0,
        "refresh_epochs": 5,
        "common_statistics": True,
        "trunk_std": 0.02,
        "head_std": 0.0,
        "prediction": "first",
        "full_batch": True,
    }
    run = {**RUN, "evaluate_every": 50, "checkpoint_every": 100}
    optimizer = {**ADAM, "learning_rate": 5e-4}
    config = _changed(_defaults("dmim", epochs=500, model=model, optimizer=optimizer, run=run), changes)
    if _known(variant):
        n = 2 * max(8, config.num_clusters)
        config.batch_size, config.epochs = (n, 2) if config.model.full_batch else (n // 2, 1)
        config.run.log_every = 1
        config.data = ConfigDict({"source": "planted", "n": n})
    return config


def dxmc(variant: str = "", **changes: Any) -> ConfigDict:
    """DXMC as in the authors' code, for `configs/dxmc_*.py`.

    Args:
      variant: "" or "smoke": two steps on generated embeddings.
      changes: what the config changes, see `_changed`.

    Raises:
      UserError: an unknown variant.
    """
    model = {
        "space_seed": 0,
        "centers": 0,
        "nouns_per_center": 5,
        "center_restarts": 10,
        "retrieval_temperature": 0.005,
        "neighbours": 50,
        "hidden": 512,
        "instance_dim": 1024,
        "cluster_temperature": 0.5,
        "instance_temperature": 0.05,
        "entropy_weight": 5.0,
        "normalized_instance": False,
        "consistent": False,
    }
    optimizer = {**ADAM, "learning_rate": 1e-3, "b2": 0.99}
    # Embeddings to be made where data.path is empty: see `embed.embed`.
    embed = {"clip": "", "splits": {}, "nouns": "", "resize": 0, "batch_size": 64, "cache": ""}
    defaults = _defaults(
        "dxmc", batch_size=512, epochs=20, model=model, optimizer=optimizer, data=EMBEDDINGS, embed=embed
    )
    config = _changed(defaults, changes)
    if _known(variant):
        config.batch_size, config.epochs = max(8, config.num_clusters), 1
        config.run.log_every = 1
        generated = {"source": "planted_embeddings", "n": 2 * config.batch_size}
        config.data, config.scored = ConfigDict(generated), ConfigDict({})
        config.embed.update({"clip": "", "splits": ConfigDict({})})
        config.model.centers = 0
    return config


def _known(variant: str) -> bool:
    if variant not in ("", SMOKE):
        raise UserError(f"unknown variant ':{variant}': only ':{SMOKE}'")
    return variant == SMOKE


def _smoke(config: ConfigDict) -> ConfigDict:
    config.batch_size, config.epochs = max(8, config.num_clusters), 1
    config.model.image_size = min(32, config.model.image_size)
    config.model.update({"scan_epochs": 1, "selflabel_epochs": 1})
    config.run.log_every = 1
    generated = {"source": "synthetic", "size": 32, "num_clusters": config.num_clusters}
    config.data = ConfigDict({**generated, "n": 2 * config.batch_size})
    if config.unlabelled:
        config.unlabelled = ConfigDict({**generated, "n": 2 * config.batch_size, "seed": 1})
    return config
