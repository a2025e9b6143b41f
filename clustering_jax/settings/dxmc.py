"""Settings of DXMC, `clustering_jax.methods.dxmc`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from ml_collections import ConfigDict

from clustering_jax.settings.base import Embed, Embeddings, Optimizer, is_smoke, new_config
from clustering_jax.settings.validate import PositiveFloat, PositiveInt, one_of


class DXMC(NamedTuple):
    """Keys of the group `model` for DXMC. The defaults are those of the authors' code."""

    # Seed of the k-means behind the nouns: the runs of all seeds share one semantic space. -1 takes the run's own seed.
    space_seed: int = 0
    # What the text is made of: "nouns" with embeddings in the space of the images, as published; or "images", which
    # stand in for the nouns themselves. This is not the published method; it names a cluster by its typical images.
    words: Annotated[str, one_of("nouns", "images")] = "nouns"
    # Centres of the semantic space. 0 is the authors' rule: the number of images / 300, at least 3 for each cluster.
    centers: int = 0
    # Nouns kept for each centre, 1 or more.
    nouns_per_center: PositiveInt = 5
    # Restarts of the k-means of the centres, 1 or more.
    center_restarts: PositiveInt = 10
    # Temperature of the softmax over the kept nouns, above 0.
    retrieval_temperature: PositiveFloat = 0.005
    # Nearest rows from which the partner of each row is drawn, 1 or more.
    neighbours: PositiveInt = 50
    # Width of the hidden layers of the heads.
    hidden: PositiveInt = 512
    # Width of the output of the instance heads.
    instance_dim: PositiveInt = 1024
    # Temperature of the contrast of clusters, above 0.
    cluster_temperature: PositiveFloat = 0.5
    # Temperature of the contrast of instances, above 0.
    instance_temperature: PositiveFloat = 0.05
    # Weight of the balance term of both cluster heads.
    entropy_weight: float = 5.0
    # Expected shares of the clusters: "uniform" is the published entropy term; "learnt" shares follow the assignments;
    # or one positive number for each cluster, as text with commas, "5,3,2".
    prior: str | Sequence[float] = "uniform"
    # Scale instance features to norm 1; the authors' code contrasts them as they are.
    normalized_instance: bool = False
    # TAC: the consistency of the assignments of both modalities replaces the contrast of instances.
    consistent: bool = False


OPTIMIZER = Optimizer(learning_rate=1e-3, b2=0.99)


def dxmc(variant: str = "", **changes: Any) -> ConfigDict:
    """DXMC as in the authors' code, for `configs/dxmc_*.py`.

    Args:
      variant: "", or "smoke" for two steps on generated embeddings.
      changes: keys that differ from the defaults, see `new_config`.

    Returns:
      The config.

    Raises:
      UserError: an unknown variant.
    """
    groups = {"model": DXMC(), "optimizer": OPTIMIZER, "data": Embeddings(), "embed": Embed()}
    config = new_config("dxmc", changes, batch_size=512, epochs=20, **groups)
    if is_smoke(variant):
        config.batch_size, config.epochs = max(8, config.num_clusters), 1
        config.run.log_every = 1
        generated = {"source": "planted_embeddings", "n": 2 * config.batch_size}
        config.data, config.scored = ConfigDict(generated), ConfigDict({})
        config.embed.update({"clip": "", "splits": ConfigDict({})})
        config.model.centers = 0
    return config
