"""Scores of a clustering. NumPy in, float out.

Those against true labels take ``(labels_true, labels_pred)`` in scikit-learn's order, each [n], of any values
(negative, strings, gaps) and any two numbers of classes and clusters; how clusters are named is no matter.
Unequal lengths or no points at all: ValueError with both shapes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from sklearn import metrics as sk


def _codes(labels_true: ArrayLike, labels_pred: ArrayLike) -> tuple[Any, Any, Any, Any]:
    """``(classes, code [n], clusters, code [n])``, the values of each side and which each point has."""
    true, pred = np.asarray(labels_true), np.asarray(labels_pred)
    if true.ndim != 1 or true.shape != pred.shape or not true.size:
        raise ValueError(f"labels must be two [n] of equal length above 0, got {true.shape} and {pred.shape}")
    return (*np.unique(true, return_inverse=True), *np.unique(pred, return_inverse=True))


def _contingency(labels_true: ArrayLike, labels_pred: ArrayLike) -> tuple[Any, Any, np.ndarray]:
    """``(classes, clusters, table)``: table [clusters, classes], int64, counts the points of each pair."""
    classes, true, clusters, pred = _codes(labels_true, labels_pred)
    pairs = pred.astype(np.int64) * len(classes) + true
    table = np.bincount(pairs, minlength=len(classes) * len(clusters))
    return classes, clusters, table.reshape(len(clusters), len(classes))


def match(labels_true: ArrayLike, labels_pred: ArrayLike) -> dict[Any, Any]:
    """The one-to-one map from cluster to class under which most points agree (Hungarian method, Kuhn 1955).

    With more clusters than classes those left over are not in it.
    """
    classes, clusters, table = _contingency(labels_true, labels_pred)
    rows, columns = linear_sum_assignment(-table)
    return dict(zip(clusters[rows].tolist(), classes[columns].tolist(), strict=True))


def accuracy(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Clustering accuracy in (0, 1]: the share of points that agree under `match`."""
    table = _contingency(labels_true, labels_pred)[2]
    return float(table[linear_sum_assignment(-table)].sum() / table.sum())


def purity(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Share of points in the largest class of their cluster, in (0, 1], at least `accuracy`; asymmetric."""
    table = _contingency(labels_true, labels_pred)[2]
    return float(table.max(1).sum() / table.sum())


def nmi(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Normalised mutual information in [0, 1], by the arithmetic mean of both entropies."""
    _, true, _, pred = _codes(labels_true, labels_pred)
    return float(sk.normalized_mutual_info_score(true, pred, average_method="arithmetic"))


def ami(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Mutual information adjusted for chance (Vinh et al. 2010), at most 1, near 0 for independent labels."""
    _, true, _, pred = _codes(labels_true, labels_pred)
    return float(sk.adjusted_mutual_info_score(true, pred, average_method="arithmetic"))


def ari(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Rand index adjusted for chance (Hubert and Arabie 1985), in [-.5, 1], near 0 for independent labels."""
    _, true, _, pred = _codes(labels_true, labels_pred)
    return float(sk.adjusted_rand_score(true, pred))


def fowlkes_mallows(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Geometric mean of precision and recall of pairs, in [0, 1]; 0 if no pair shares both sides."""
    _, true, _, pred = _codes(labels_true, labels_pred)
    return float(sk.fowlkes_mallows_score(true, pred))


SCORES = {"acc": accuracy, "nmi": nmi, "ami": ami, "ari": ari, "fmi": fowlkes_mallows, "purity": purity}


def scores(labels_true: ArrayLike, labels_pred: ArrayLike) -> dict[str, float]:
    """All of the above: acc, nmi, ami, ari, fmi, purity."""
    return {name: function(labels_true, labels_pred) for name, function in SCORES.items()}


def silhouette(features: ArrayLike, labels: ArrayLike, *, sample: int = 2000, seed: int = 0) -> float:
    """Mean silhouette in [-1, 1] (Rousseeuw 1987, Euclidean) of up to `sample` points drawn by `seed`.

    NaN where it is undefined: one cluster in the sample, or as many as points. Needs no true labels.

    Args:
      features: [n, ...], flattened to rows. labels: [n], the clusters.

    Raises:
      ValueError: the lengths differ or are 0, with both shapes.
    """
    rows, codes = np.asarray(features), np.asarray(labels)
    if codes.ndim != 1 or rows.shape[:1] != codes.shape or not codes.size:
        raise ValueError(f"features [n, ...] and labels [n] must have equal length, got {rows.shape}, {codes.shape}")
    if len(codes) > sample:
        chosen = np.random.default_rng(seed).choice(len(codes), sample, replace=False)
        rows, codes = rows[chosen], codes[chosen]
    codes = np.unique(codes, return_inverse=True)[1]
    if not 2 <= codes.max() + 1 < len(codes):
        return float("nan")
    # Float64: Euclidean distances of near points cancel in float32.
    return float(sk.silhouette_score(rows.reshape(len(rows), -1).astype(np.float64), codes))


def cluster_sizes(labels: ArrayLike, k: int) -> np.ndarray:
    """Points in each of `k` clusters, int64 [k], empty ones included; labels [n], integers in [0, k)."""
    codes = np.asarray(labels)
    if codes.ndim != 1 or (codes.size and not (codes.min() >= 0 and codes.max() < k)):
        raise ValueError(f"labels must be [n] in [0, {k}), got shape {codes.shape} and values {codes}")
    return np.bincount(codes, minlength=k).astype(np.int64)


def occupied(labels: ArrayLike, k: int) -> int:
    """How many of `k` clusters hold a point."""
    return int((cluster_sizes(labels, k) > 0).sum())


def _assignments(p: ArrayLike) -> np.ndarray:
    rows = np.asarray(p, np.float64)
    if rows.ndim != 2 or not rows.size:
        raise ValueError(f"soft assignments must be [n, k] with n and k above 0, got {rows.shape}")
    return rows


def mean_confidence(p: ArrayLike) -> float:
    """Mean largest probability of a row, in [1/k, 1]; p [n, k], rows on the simplex."""
    return float(_assignments(p).max(1).mean())


def assignment_entropy(p: ArrayLike) -> float:
    """Entropy of the mean assignment in nats: log k if clusters are used alike, 0 in collapse; p [n, k]."""
    mean = _assignments(p).mean(0)
    return float(-np.sum(mean * np.log(np.where(mean > 0, mean, 1.0))) + 0.0)


def label_free(probabilities: np.ndarray) -> dict[str, float]:
    """Scores that need no labels. `probabilities` [n, k]: rows on the simplex."""
    k = probabilities.shape[1]
    labels = probabilities.argmax(1)
    sizes = cluster_sizes(labels, k)
    return {
        "occupied": occupied(labels, k),
        "entropy": assignment_entropy(probabilities),
        "confidence": mean_confidence(probabilities),
        "smallest": int(sizes.min()),
        "largest": int(sizes.max()),
    }


def evaluate(probabilities: np.ndarray, labels: np.ndarray | None) -> dict[str, float]:
    """`label_free`, and where there are labels `scores`; a negative label marks a row without one."""
    result = label_free(probabilities)
    if labels is not None:
        known = np.asarray(labels) >= 0
        result |= scores(np.asarray(labels)[known], probabilities.argmax(1)[known])
    return result
