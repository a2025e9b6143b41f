"""The setting `model.until_settled`: CMMC's third stage ends when its prediction no longer changes.

The stage first moves away from the clusters of the contrast and empties some of them; more steps fill them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from clustering_jax.method import Refresh

# Steps between two looks at the prediction, and the largest share of rows that may change in a settled one.
STEPS, CHANGED = 50, 1e-3


def settling(targets: Callable, predict: Callable) -> dict[str, Any]:
    """The fields `targets` and `refresh` of a phase that ends when the prediction has settled.

    Args:
      targets: `Phase.targets` of the phase.
      predict: ``(variables, batch) -> [n, k]``.
    """

    def clusters(variables: Any, infer: Callable) -> dict[str, np.ndarray]:
        return {"cluster": infer(predict, variables).argmax(1).astype(np.int32)}

    def start(key: jax.Array, variables: Any, infer: Callable) -> dict[str, np.ndarray]:
        return {**targets(key, variables, infer), **clusters(variables, infer)}

    def update(key: jax.Array, variables: Any, infer: Callable, present: Mapping) -> dict[str, np.ndarray] | None:
        now = clusters(variables, infer)
        settled = np.mean(now["cluster"] != present["cluster"]) <= CHANGED
        return None if settled else {**present, **now}

    return {"targets": start, "refresh": Refresh(STEPS, update)}
