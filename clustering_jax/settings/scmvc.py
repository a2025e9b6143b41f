"""Settings of SCMVC, `clustering_jax.methods.scmvc`."""

from __future__ import annotations

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from clustering_jax.settings.base import is_smoke, new_config
from clustering_jax.settings.cmmc import RUN, make_small
from clustering_jax.settings.validate import NonNegativeInt, PositiveFloat, PositiveInt, Width, Widths


class SCMVC(NamedTuple):
    """Keys of the group `model` for SCMVC. The defaults are those of the authors' code."""

    # Widths of the hidden layers of each encoder, 1 or more. The decoders mirror them.
    hidden: Widths = (500, 500, 2000)
    # Width of z, the low-level features of a view.
    latent_dim: Width = 64
    # Width of r, the high-level features of a view, and of H, the features of all views together.
    feature_dim: Width = 20
    # Width of the hidden layer that fuses the low-level features of all views.
    fusion_dim: Width = 256
    # Temperature of the contrast, above 0.
    temperature: PositiveFloat = 1.0
    # Length of the first stage, in passes over the rows; 0 leaves the stage out.
    reconstruction_epochs: NonNegativeInt = 200
    # Restarts of the k-means on H that makes the clusters, 1 or more.
    kmeans_restarts: PositiveInt = 100


def scmvc(variant: str = "", **changes: Any) -> ConfigDict:
    """SCMVC as in the authors' code, for `configs/scmvc.py`. `epochs` is the length of the contrastive stage.

    Args:
      variant: "", or "smoke" for two steps of each stage on small generated views.
      changes: keys that differ from the defaults, see `new_config`.

    Returns:
      The config.

    Raises:
      UserError: an unknown variant.
    """
    config = new_config("scmvc", changes, epochs=50, model=SCMVC(), run=RUN)
    if is_smoke(variant):
        make_small(config)
    return config
