"""How much new rows differ from old ones, and the sizes of the clusters over time."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from clustering_jax.editing.novelty import Novelty

# Least share of the old rows that count as rows of low confidence.
LOW = 0.1


def low_confidence(old: np.ndarray, threshold: float) -> float:
    """The confidence below which a row counts as one of low confidence.

    Args:
      old: confidence of the old rows, [m].
      threshold: that of `reject`, or 0. It is raised to the confidence that a tenth of the old rows do not reach.
    """
    return max(threshold, float(np.quantile(old, LOW)))


def drift(
    old: np.ndarray, new: np.ndarray, limit: float, novel: Novelty, places: tuple[np.ndarray, np.ndarray]
) -> dict[str, Any]:
    """Drift of new rows, by the model before it was trained on them.

    Args:
      old: confidence of the old rows, [m].
      new: confidence of the new rows, [n].
      limit: confidence below which a row counts as one of low confidence.
      novel: distances of the rows.
      places: embedding of the old and of the new rows, [m, d] and [n, d].

    Returns:
      "low_confidence": the share of such rows, old and new. "distance": the mean cosine distance to the nearest old
      rows, old and new. "shift": the distance between the means of the old and of the new embedding, in units of the
      root mean square distance of the old rows to their mean; with the value that is expected where nothing changed.
    """
    (before, after), (m, n) = places, map(len, places)
    mean = before.mean(0)
    spread = float(np.sqrt(((before - mean) ** 2).sum(1).mean()))
    shift = float(np.linalg.norm(after.mean(0) - mean)) / max(spread, 1e-12)
    return {
        "low_confidence": {"below": limit, "old": float((old < limit).mean()), "new": float((new < limit).mean())},
        "distance": {"old": float(novel.old.mean()), "new": float(novel.new.mean())},
        "shift": {"value": shift, "expected": float(np.sqrt(1 / m + 1 / n))},
    }


def sizes(clusters: np.ndarray, names: Collection[int]) -> dict[str, int]:
    """Number of rows of each cluster, by its number as text; "-1" are the rows without a cluster.

    Args:
      clusters: cluster of each row, int [n].
      names: the clusters, some of which may be empty.
    """
    counts = {int(c): int((clusters == c).sum()) for c in sorted({*names, *clusters.tolist()})}
    return {str(cluster): count for cluster, count in counts.items()}
