"""Settings of TEMI, `clustering_jax.methods.temi`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from ml_collections import ConfigDict

from clustering_jax.settings.base import Embed, Embeddings, Optimizer, is_smoke, new_config, split_variant
from clustering_jax.settings.turtle import make_small
from clustering_jax.settings.validate import NonNegativeInt, PositiveFloat, PositiveInt, Rule


class Temi(NamedTuple):
    """Keys of the group `model` for TEMI. The defaults are those of the authors' code unless a comment says other."""

    # Cluster heads that train side by side; the one with the lowest training loss of the last epoch predicts.
    heads: PositiveInt = 16
    # Width of the first layer of a head.
    hidden: PositiveInt = 512
    # Width of the second layer of a head.
    width: PositiveInt = 256
    # Nearest rows by cosine, among which the partner of each row is drawn, 1 or more.
    neighbours: PositiveInt = 50
    # Exponent of the pointwise mutual information, above 0 and at most 1. Less than 1 counters one-hot collapse.
    beta: Annotated[float, Rule(lambda value: 0 < value <= 1, lambda _: ": choose a number above 0, 1 at most")] = 0.6
    # Expected shares of the clusters, by which the summands of the information are multiplied: "uniform", as published;
    # "learnt" shares follow the assignments; or one positive number for each cluster, as text with commas, "5,3,2".
    prior: str | Sequence[float] = "uniform"
    # Temperature of the students' softmax, above 0.
    student_temperature: PositiveFloat = 0.1
    # Temperature of the teachers' softmax, above 0.
    teacher_temperature: PositiveFloat = 0.1
    # Decay of the moving average of the weights that is the teacher, in [0, 1).
    teacher_decay: Annotated[
        float, Rule(lambda value: 0 <= value < 1, lambda _: ": choose a number from 0, below 1")
    ] = 0.996
    # Epochs in which the learning rate rises linearly from 0.
    warmup_epochs: NonNegativeInt = 20
    # Multiply the features by one number, so that the mean norm of the rows is sqrt(d). False keeps them as they are,
    # as in the authors' code.
    scale: bool = True


# The authors' rate is 1e-4 * batch_size / 256.
OPTIMIZER = Optimizer(learning_rate=4e-4, decoupled_decay=1e-4)
# For a few thousand rows, or for a CPU: more and faster steps of fewer heads. Not in the paper.
QUICK = Temi(heads=2, warmup_epochs=5, teacher_decay=0.99)


def temi(variant: str = "", **changes: Any) -> ConfigDict:
    """TEMI as in the authors' code, for `configs/temi_*.py`; features are scaled, see `Temi.scale`.

    Args:
      variant: "" as published; "quick" for a few thousand rows or a CPU; or "smoke" for two steps on generated
        embeddings, also "quick,smoke".
      changes: keys that differ from the defaults, see `new_config`.

    Returns:
      The config.

    Raises:
      UserError: an unknown variant.
    """
    name, smoke = split_variant(variant, ("published", "quick"))
    model, optimizer, batch_size, epochs = Temi(), OPTIMIZER, 1024, 100
    if name == "quick":
        model, optimizer, batch_size, epochs = QUICK, OPTIMIZER._replace(learning_rate=1e-3), 256, 80
    groups = {"model": model, "optimizer": optimizer, "data": Embeddings(), "embed": Embed()}
    config = new_config("temi", changes, batch_size=batch_size, epochs=epochs, **groups)
    if is_smoke(smoke):
        make_small(config)
    return config
