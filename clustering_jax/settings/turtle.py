"""Settings of TURTLE, `clustering_jax.methods.turtle`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from clustering_jax.settings.base import Embed, Embeddings, Optimizer, Photos, Run, is_smoke, new_config
from clustering_jax.settings.validate import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


class Turtle(NamedTuple):
    """Keys of the group `model` for TURTLE. The defaults are those of the authors' code unless a comment says other."""

    # Outer steps, each on a batch of `batch_size` rows. 0 takes `epochs` passes over the rows instead.
    num_steps: NonNegativeInt = 6000
    # Weight of the divergence of the mean assignment from the prior, 0 or more.
    gamma: NonNegativeFloat = 10.0
    # Adam steps of the inner classifiers in each outer step, 1 or more.
    inner_steps: PositiveInt = 10
    # Learning rate of the inner classifiers, above 0.
    inner_learning_rate: PositiveFloat = 1e-3
    # Keep the inner classifiers and their Adam state from one outer step to the next, instead of drawing new ones.
    warm_start: bool = False
    # Expected shares of the clusters: "uniform" is the published entropy term; "learnt" shares follow the assignments;
    # "none" leaves the term out; or one positive number for each cluster, as text with commas, "5,3,2". Only "uniform"
    # is in the paper.
    prior: str | Sequence[float] = "uniform"
    # Multiply each feature space by one number, so that the mean norm of its rows is sqrt(d). False keeps the features
    # as they are, as in the authors' code, whose features have such norms already.
    scale: bool = True


def turtle(variant: str = "", **changes: Any) -> ConfigDict:
    """TURTLE as in the authors' code, for `configs/turtle_*.py`; features are scaled, see `Turtle.scale`.

    Args:
      variant: "", or "smoke" for two steps on generated features.
      changes: keys that differ from the defaults, see `new_config`.

    Returns:
      The config.

    Raises:
      UserError: an unknown variant.
    """
    groups = {"model": Turtle(), "optimizer": Optimizer(learning_rate=1e-3), "data": Embeddings(), "embed": Embed()}
    run = Run(evaluate_every=0, checkpoint_every=500)
    config = new_config("turtle", changes, batch_size=10_000, epochs=1, run=run, **groups)
    if is_smoke(variant):
        make_small(config)
        config.model.num_steps = 2
    return config


def photos(variant: str = "", **changes: Any) -> ConfigDict:
    """TURTLE on photos, embedded by a pretrained encoder first: ``configs/photos.py``.

    Args:
      variant: "", or "smoke" for two steps on generated features.
      changes: keys that differ from the defaults, see `new_config`.

    Returns:
      The config.

    Raises:
      UserError: an unknown variant.
    """
    return turtle(variant, **{"data": Photos()._asdict(), "embed": {"encoder": "lite0"}, **changes})


def make_small(config: ConfigDict) -> None:
    """Changes a config of frozen features to two small batches of generated ones."""
    config.batch_size, config.epochs = max(8, config.num_clusters), 1
    config.run.log_every = 1
    source = "planted" if config.data.source == "multiview" else "planted_embeddings"
    config.data, config.scored = ConfigDict({"source": source, "n": 2 * config.batch_size}), ConfigDict({})
    config.embed.update({"clip": "", "encoder": "", "splits": ConfigDict({})})
