"""How many clusters, without labels: the silhouette of k-means over a range of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.cluster import KMeans

from clustering_jax import metrics
from clustering_jax.data.base import Dataset
from clustering_jax.errors import UserError

# More rows change the curve less than another seed does.
SAMPLE = 10_000


def num_clusters(dataset: Dataset, cluster_range: Sequence[int], *, seed: int) -> dict[str, Any]:
    """The number whose k-means clusters have the greatest mean silhouette, the least of equals.

    Of embeddings, or of all views side by side; of a sample of 10,000 rows where there are more.

    Args:
      cluster_range: ``(least, most)``, of the numbers tried. seed: of k-means and of the sample.

    Returns:
      ``{"num_clusters": K, "criterion": what it is, "curve": [[k, mean silhouette in [-1, 1]], ...]}``

    Raises:
      UserError: pixels, whose distances tell little; rows that are all equal; or a range that is empty or reaches
        beyond the rows.
    """
    rows = _rows(dataset)
    n = min(len(rows), SAMPLE)
    if list(map(type, cluster_range)) != [int, int] or not 2 <= cluster_range[0] <= cluster_range[1] < n:
        found = ", ".join(map(str, cluster_range))
        raise UserError(
            f"cluster_range is ({found}): choose (least, most), 2 <= least <= most < {n}, the rows compared"
        )
    least, most = cluster_range
    rows = rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:n])]
    curve = []
    for k in range(least, most + 1):
        labels = KMeans(k, n_init=4, random_state=seed).fit_predict(rows)
        value = metrics.silhouette(rows, labels, seed=seed)
        # It has none where one cluster holds the whole sample.
        curve += [] if math.isnan(value) else [[k, value]]
    if not curve:
        raise UserError(f"no number of clusters between {least} and {most} has a silhouette: are the rows all equal?")
    best = max(curve, key=lambda point: point[1])[0]
    return {"num_clusters": best, "criterion": f"mean silhouette of k-means on {n} rows", "curve": curve}


def told(found: dict[str, Any]) -> str:
    """The choice and its curve in a line."""
    curve = " ".join(f"{k}:{value:.3f}" for k, value in found["curve"])
    return f"num_clusters {found['num_clusters']}, chosen by {found['criterion']} ({curve})"


def _rows(dataset: Dataset) -> np.ndarray:
    features = [rows for name, rows in dataset.features.items() if name != "mask"]
    if any(rows.ndim != 2 for rows in features):
        raise UserError("num_clusters is auto, which needs embeddings or views: of images, say the number")
    return np.concatenate(features, axis=1)
