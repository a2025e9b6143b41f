"""Settings of k-means, `clustering_jax.methods.kmeans`."""

from __future__ import annotations

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from clustering_jax.settings.base import whole_data_config
from clustering_jax.settings.validate import PositiveInt


class KMeans(NamedTuple):
    """Keys of the group `model` for k-means."""

    # Number of the only view to cluster; -1 is all views side by side.
    view: int = -1
    # Give each view the same total variance, so that a view with many columns or large numbers does not lead.
    equal_views: bool = False
    # Restarts, 1 or more; the one with the smallest inertia is kept.
    restarts: PositiveInt = 10


def kmeans(variant: str = "", **changes: Any) -> ConfigDict:
    """k-means on views or embeddings.

    Args:
      variant: "", or "smoke" for generated views.
      changes: keys that differ from the defaults, see `new_config`.

    Returns:
      The config.

    Raises:
      UserError: an unknown variant.
    """
    return whole_data_config("kmeans", variant, KMeans(), changes)
