"""Rows that a model is not sure of: how many of the assigned rows are right, estimated without labels.

Two classifiers that were trained independently disagree on about the share of rows that one of them gets wrong (Jiang
et al., Assessing Generalization of SGD via Disagreement, ICLR 2022). The second opinions are clusterings of half of the
rows and, if there are some, the other seeds of the run.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.isotonic import IsotonicRegression

from clustering_jax import metrics

BINS = 10
# Clusterings of half of the rows, and the most rows of a half.
HALVES, ROWS = 10, 20_000


class Rejection(NamedTuple):
    """A threshold of the confidence.

    Attributes:
      threshold: smallest probability of a row that keeps its cluster.
      expected: share of the rows above it that are expected to be right.
    """

    threshold: float
    expected: float


def agreement_of_seeds(clusters: Sequence[np.ndarray], best: int) -> np.ndarray:
    """The share of the other seeds that put a row into the same cluster, after a one-to-one match of the clusters.

    Args:
      clusters: int [n] of each seed, at least two.
      best: number of the seed that is compared with the others.

    Returns:
      float [n].
    """
    others = (other for seed, other in enumerate(clusters) if seed != best)
    return np.mean([_agrees(clusters[best], other) for other in others], axis=0)


def agreement_of_halves(rows: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """The share of ten clusterings, each made from half of the rows, that put a row into the same cluster.

    Each is k-means from one start on a random half of the rows; the others go to the nearest centroid. Its clusters are
    matched one to one. Clusters that depend on the start or on the sample differ (Monti et al., Consensus clustering,
    Machine Learning 2003).

    Args:
      rows: embedding [n, d].
      clusters: int [n].

    Returns:
      float [n].
    """
    k, votes = len(np.unique(clusters)), []
    for number in range(HALVES):
        half = np.random.default_rng(number).permutation(len(rows))[: max(min(len(rows) // 2, ROWS), k)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer distinct rows than clusters
            found = KMeans(k, n_init=1, random_state=number).fit(rows[half])
        votes.append(_agrees(clusters, found.predict(rows)))
    return np.mean(votes, axis=0)


def _agrees(clusters: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether another clustering has the same cluster for a row, after a one-to-one match, bool [n]."""
    matched = metrics.match(clusters, other)
    return np.array([matched.get(c, -1) for c in other.tolist()]) == clusters


def rejection(confidence: np.ndarray, agreement: np.ndarray, share: float) -> Rejection:
    """The smallest threshold above which the share of right rows is expected to be at least `share`.

    The chance that a row is right is the isotonic regression of the agreement on the confidence. Where no threshold
    reaches the share, the rows with the largest chance stay.

    Args:
      confidence: probability of the row's cluster, [n].
      agreement: agreement of a second classifier, [n] in [0, 1].
      share: wanted share, in (0, 1].
    """
    # In float32 the regression divides by zero between confidences that are nearly equal.
    confidence = np.asarray(confidence, float)
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence = confidence[order]
    chance = IsotonicRegression(y_min=0, y_max=1).fit_transform(confidence, agreement)[order]
    mean = np.cumsum(chance) / (np.arange(len(chance)) + 1)
    last = np.flatnonzero(np.append(np.diff(sorted_confidence) != 0, True))  # of rows with equal confidence
    enough = last[mean[last] >= share]
    index = enough[-1] if len(enough) else last[chance[last] >= chance[0]][-1]
    return Rejection(float(sorted_confidence[index]), float(mean[index]))


def reliability(confidence: np.ndarray, agreement: np.ndarray) -> list[dict[str, Any]]:
    """Mean confidence and mean agreement in ten groups of rows of equal size, by confidence.

    Args:
      confidence: [n].
      agreement: [n].
    """
    groups = np.array_split(np.argsort(confidence, kind="stable"), BINS)
    return [
        {"rows": len(g), "confidence": float(confidence[g].mean()), "agreement": float(agreement[g].mean())}
        for g in groups
        if len(g)
    ]
