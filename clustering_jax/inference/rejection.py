"""Rows that a model is not sure of: how many of the assigned rows are right, estimated without labels.

Two classifiers that were trained independently disagree on about the share of rows that one of them gets wrong (Jiang
et al., Assessing Generalization of SGD via Disagreement, ICLR 2022). The second classifier is another seed of the run
or, for one seed, a vote of the nearest rows in the embedding, which leaves the row itself out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.isotonic import IsotonicRegression

from clustering_jax import metrics

BINS = 10


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
    own, votes = clusters[best], []
    for other in (c for i, c in enumerate(clusters) if i != best):
        matched = metrics.match(own, other)
        votes.append(np.array([matched.get(c, -1) for c in other.tolist()]) == own)
    return np.mean(votes, axis=0)


def agreement_of_neighbours(clusters: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Whether most of a row's neighbours are in its cluster: 1.0 or 0.0. Of equal votes the smaller cluster wins.

    Args:
      clusters: int [n] in [0, k).
      neighbours: row numbers of the nearest rows, int [n, m].

    Returns:
      float [n].
    """
    n, k = len(clusters), clusters.max() + 1
    cells = np.arange(n)[:, None] * k + clusters[neighbours]
    votes = np.bincount(cells.ravel(), minlength=n * k).reshape(n, k)
    return (votes.argmax(1) == clusters).astype(float)


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
