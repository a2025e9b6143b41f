"""Defaults of the clustering heads on frozen features: TURTLE and TEMI."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from clustering_jax.settings.base import ADAM, EMBEDDINGS, RUN, _changed, _defaults, _known

# Embeddings to be made where data.path is empty.
EMBED = {"clip": "", "splits": {}, "nouns": "", "resize": 0, "batch_size": 64, "cache": ""}


def turtle(variant: str = "", **changes: Any) -> ConfigDict:
    """TURTLE as in the authors' code, for `configs/turtle_*.py`; features are scaled, see `model.scale`.

    Args:
      variant: "" or "smoke": two steps on generated features.
      changes: what the config changes, see `_changed`.

    Raises:
      UserError: an unknown variant.
    """
    model = {
        "num_steps": 6000,
        "gamma": 10.0,
        "inner_steps": 10,
        "inner_learning_rate": 1e-3,
        "warm_start": False,
        "prior": "uniform",
        "scale": True,
    }
    optimizer = {**ADAM, "learning_rate": 1e-3}
    run = {**RUN, "evaluate_every": 0, "checkpoint_every": 500}
    defaults = _defaults(
        "turtle",
        batch_size=10000,
        epochs=1,
        model=model,
        optimizer=optimizer,
        data=EMBEDDINGS,
        embed=EMBED,
        run=run,
    )
    config = _changed(defaults, changes)
    if _known(variant):
        _small(config)
        config.model.num_steps = 2
    return config


def temi(variant: str = "", **changes: Any) -> ConfigDict:
    """TEMI as in the authors' code, for `configs/temi_*.py`; features are scaled, see `model.scale`.

    Args:
      variant: "" or "smoke": two steps on generated embeddings.
      changes: what the config changes, see `_changed`.

    Raises:
      UserError: an unknown variant.
    """
    model = {
        "heads": 16,
        "hidden": 512,
        "width": 256,
        "neighbours": 50,
        "beta": 0.6,
        "student_temperature": 0.1,
        "teacher_temperature": 0.1,
        "teacher_decay": 0.996,
        "warmup_epochs": 20,
        "scale": True,
    }
    # The authors' rate is 1e-4 * batch_size / 256.
    optimizer = {**ADAM, "learning_rate": 4e-4, "decoupled_decay": 1e-4}
    defaults = _defaults(
        "temi", batch_size=1024, epochs=100, model=model, optimizer=optimizer, data=EMBEDDINGS, embed=EMBED
    )
    config = _changed(defaults, changes)
    if _known(variant):
        _small(config)
    return config


def _small(config: ConfigDict) -> None:
    """Changes the config to two small batches of generated features."""
    config.batch_size, config.epochs = max(8, config.num_clusters), 1
    config.run.log_every = 1
    views = config.data.source == "multiview"
    config.data = ConfigDict({"source": "planted" if views else "planted_embeddings", "n": 2 * config.batch_size})
    config.scored = ConfigDict({})
    config.embed.update({"clip": "", "splits": ConfigDict({})})
