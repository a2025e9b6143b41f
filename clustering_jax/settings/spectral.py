"""Settings of spectral clustering, `clustering_jax.methods.spectral`."""

from __future__ import annotations

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from clustering_jax.settings.base import whole_data_config
from clustering_jax.settings.validate import PositiveInt


class Spectral(NamedTuple):
    """Keys of the group `model` for spectral clustering."""

    # Neighbours of a row in the graph of each view, 1 or more.
    neighbours: PositiveInt = 10
    # Restarts of the k-means on the eigenvectors, 1 or more.
    restarts: PositiveInt = 10


def spectral(variant: str = "", **changes: Any) -> ConfigDict:
    """Spectral clustering of views or embeddings.

    Args:
      variant: "", or "smoke" for generated views.
      changes: keys that differ from the defaults, see `new_config`.

    Returns:
      The config.

    Raises:
      UserError: an unknown variant.
    """
    return whole_data_config("spectral", variant, Spectral(), changes)
