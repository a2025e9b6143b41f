"""How good the features of a run are, by the nearest neighbours of each row in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from clustering_jax.data.base import Dataset
from clustering_jax.data.images.streaming import LazyArray
from clustering_jax.kmeans.neighbours import nearest_neighbours
from clustering_jax.metrics import knn_accuracy, knn_consistency

NEIGHBOURS = 20
# The most rows that are compared with each other, and the most where they are read from storage.
ROWS, LAZY_ROWS = 10_000, 2_000


def rows_to_compare(dataset: Dataset) -> np.ndarray:
    """Row numbers, ascending: all rows, or a fixed random choice of them where they are many.

    Rows whose label is not known are left out where the data have labels.
    """
    labels = dataset.labels
    rows = np.arange(dataset.num_examples) if labels is None else np.flatnonzero(np.asarray(labels) >= 0)
    most = LAZY_ROWS if any(isinstance(x, LazyArray) for x in dataset.features.values()) else ROWS
    return rows if len(rows) <= most else np.sort(np.random.default_rng(0).choice(rows, most, replace=False))


def with_feature_scores(
    result: Mapping[str, Any],
    embed: Callable,
    dataset: Dataset,
    clusters: np.ndarray,
    embedding: np.ndarray,
    neighbours: np.ndarray | None = None,
) -> dict[str, Any]:
    """The content of result.json with the scores of `feature_scores`, and what they compare."""
    scores, compared = feature_scores(embed, dataset, clusters, embedding, neighbours)
    protocol = {**result["protocol"], "neighbours": compared} if scores else result["protocol"]
    return {**result, "scores": {**result["scores"], **scores}, "protocol": protocol}


def feature_scores(
    embed: Callable,
    dataset: Dataset,
    clusters: np.ndarray,
    embedding: np.ndarray,
    neighbours: np.ndarray | None = None,
) -> tuple[dict[str, float], str]:
    """Scores of the features by the 20 nearest neighbours of each row, by cosine, without the row itself.

    Args:
      embed: ``features -> [n, d]``.
      dataset: the scored data.
      clusters: int [n], the cluster of each of its rows.
      embedding: the embedding [n, d] of its rows; empty if it is to be computed here, for the compared rows alone.
      neighbours: row numbers of the nearest rows in it, int [n, 20] or more; None searches them here.

    Returns:
      "knn_consistency" and, if there are labels, "knn_accuracy", see `clustering_jax.metrics`; and a note of what was
      compared. Both are empty if there are fewer than two rows to compare.
    """
    rows = rows_to_compare(dataset)
    if len(rows) < 2:
        return {}, ""
    count = min(NEIGHBOURS, len(rows) - 1)
    if neighbours is not None and len(rows) == dataset.num_examples:
        near = neighbours[:, :count]
    else:
        few = {name: values[rows] for name, values in dataset.features.items()}
        features = embedding[rows] if embedding.size else embed(few).reshape(len(rows), -1)
        near = np.asarray(nearest_neighbours(jnp.asarray(features, jnp.float32), count))
    scores = {"knn_consistency": knn_consistency(clusters[rows], near)}
    if dataset.labels is not None:
        scores["knn_accuracy"] = knn_accuracy(np.asarray(dataset.labels)[rows], near)
    of = "all rows" if len(rows) == dataset.num_examples else f"{len(rows):,} of {dataset.num_examples:,} rows"
    return scores, f"{count} nearest of {of}, by cosine, leave one out"
