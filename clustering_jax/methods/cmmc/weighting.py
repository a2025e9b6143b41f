"""The setting `model.view_weights`: views of unequal quality have unequal weights.

The weights are computed once, from the data, at the start of the contrastive stage. They are a collection of the
variables, so that a prediction of new rows uses them too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from clustering_jax.methods.cmmc.pseudo_labels import joint_pseudo_labels
from clustering_jax.methods.view_agreement import agreements, view_folds
from clustering_jax.methods.views import view_names, view_number
from clustering_jax.typing import Array

# Restarts of the k-means on all views.
RESTARTS = 10


class ViewWeights(NamedTuple):
    """The weights of the views in a run.

    Args:
      kind: "equal" or "agreement", see `CMMC`.
    """

    kind: str

    def initial(self, num_views: int) -> dict[str, Any]:
        """The collection that CMMC adds to its variables: equal weights, or nothing for the kind "equal"."""
        return {} if self.kind == "equal" else {"views": {"weight": jnp.ones(num_views)}}

    def of(self, variables: Mapping[str, Any], batch: Mapping[str, Array]) -> Array | None:
        """The weights in the variables of the views in a batch, [views]; None for the kind "equal"."""
        if self.kind == "equal":
            return None
        return variables["views"]["weight"][np.array([view_number(name) for name in view_names(batch)])]

    def values(self, variables: Mapping[str, Any], num_views: int) -> np.ndarray:
        """The weights of all views, [num_views]; ones for the kind "equal"."""
        return np.ones(num_views) if self.kind == "equal" else np.asarray(variables["views"]["weight"])

    def updated(self, batch: Mapping[str, Array]) -> dict[str, Any]:
        """The collection with the weights of `targets`, which join each batch."""
        return {} if self.kind == "equal" else {"views": {"weight": batch["weight"][0]}}

    def targets(self, views: Callable[[Any, Callable], tuple], k: int) -> Callable | None:
        """`Phase.targets` of the contrastive stage: the same weights in each row, "weight" [n, views].

        Args:
          views: ``(variables, infer) -> (rows of each view, mask)``.
          k: number of clusters.
        """
        if self.kind == "equal":
            return None

        def compute(key: Array, variables: Any, infer: Callable) -> dict[str, np.ndarray]:
            rows, mask = views(variables, infer)
            return {"weight": np.tile(agreement_weights(key, rows, mask, k), (len(mask), 1))}

        return compute


def agreement_weights(key: Array, views: list[np.ndarray], mask: np.ndarray, k: int) -> np.ndarray:
    """How well each view predicts the clusters of k-means on all views side by side.

    Args:
      key: random key.
      views: rows of each view, [n, d_v].
      mask: which rows have which view, bool [n, views].
      k: number of clusters.

    Returns:
      float32 [views], `agreements` divided by their mean; equal weights where all are 0.
    """
    labels = joint_pseudo_labels(key, views, mask, k, RESTARTS)["pseudo"].max(1)
    found = np.asarray(agreements(view_folds(views, mask), labels), np.float32)
    return found / found.mean() if found.any() else np.ones_like(found)
