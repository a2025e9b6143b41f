"""Scores of a clustering. The inputs are NumPy arrays and each score is a float.

Scores that compare with true labels take ``(labels_true, labels_pred)``, in scikit-learn's order. Both are [n]. The
labels may have any values (negative numbers, strings, numbers with gaps), and the number of clusters may differ from
the number of classes. Renaming the clusters does not change a score. These functions raise a ValueError that names both
shapes if the lengths differ or if there are no points, or that names the first label that is NaN, infinite or None.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from sklearn import metrics as sk


def _codes(labels_true: ArrayLike, labels_pred: ArrayLike) -> tuple[Any, Any, Any, Any]:
    """``(classes, code [n], clusters, code [n])``: the distinct labels of each side, and each point's index in them."""
    true, pred = np.asarray(labels_true), np.asarray(labels_pred)
    if true.ndim != 1 or true.shape != pred.shape or not true.size:
        raise ValueError(f"labels must be two [n] of equal length above 0, got {true.shape} and {pred.shape}")
    _check_known("labels_true", true)
    _check_known("labels_pred", pred)
    return (*np.unique(true, return_inverse=True), *np.unique(pred, return_inverse=True))


def _check_known(name: str, labels: np.ndarray) -> None:
    """Raises a ValueError where a label is NaN, infinite or None: it would be a class of its own."""
    if labels.dtype.kind not in "fcO":
        return
    numbers = labels.dtype.kind != "O"
    bad = ~np.isfinite(labels) if numbers else np.array([_is_missing(label) for label in labels], bool)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"{name} has {labels[row]} in row {row}: leave out the rows whose label is not known")


def _is_missing(label: Any) -> bool:
    return label is None or (isinstance(label, float | np.floating) and not np.isfinite(label))


def _contingency(labels_true: ArrayLike, labels_pred: ArrayLike) -> tuple[Any, Any, np.ndarray]:
    """``(classes, clusters, table)``; the table, int64 [clusters, classes], counts the points of each pair."""
    classes, true, clusters, pred = _codes(labels_true, labels_pred)
    pairs = pred.astype(np.int64) * len(classes) + true
    table = np.bincount(pairs, minlength=len(classes) * len(clusters))
    return classes, clusters, table.reshape(len(clusters), len(classes))


def match(labels_true: ArrayLike, labels_pred: ArrayLike) -> dict[Any, Any]:
    """The one-to-one map from clusters to classes that maximises the number of points on which both agree.

    It is computed with the Hungarian method (Kuhn 1955). If there are more clusters than classes, the clusters that
    have no class are missing from the map.
    """
    classes, clusters, table = _contingency(labels_true, labels_pred)
    rows, columns = linear_sum_assignment(-table)
    return dict(zip(clusters[rows].tolist(), classes[columns].tolist(), strict=True))


def accuracy(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Clustering accuracy in (0, 1]: the share of points whose cluster is mapped to their class by `match`."""
    table = _contingency(labels_true, labels_pred)[2]
    return float(table[linear_sum_assignment(-table)].sum() / table.sum())


def purity(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Share of points that belong to the largest class of their cluster, in (0, 1].

    It is at least `accuracy`, and it is not symmetric in its arguments.
    """
    classes, true, clusters, pred = _codes(labels_true, labels_pred)
    # Not as a table, which 60,000 labels of their own on both sides would make 27 GiB large.
    pairs, counts = np.unique(pred.astype(np.int64) * len(classes) + true, return_counts=True)
    largest = np.zeros(len(clusters), np.int64)
    np.maximum.at(largest, pairs // len(classes), counts)
    return float(largest.sum() / len(true))


def nmi(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Normalised mutual information in [0, 1]: divided by the arithmetic mean of both entropies."""
    _, true, _, pred = _codes(labels_true, labels_pred)
    return float(sk.normalized_mutual_info_score(true, pred, average_method="arithmetic"))


def ami(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Mutual information adjusted for chance (Vinh et al. 2010). At most 1, and near 0 for independent labels."""
    _, true, _, pred = _codes(labels_true, labels_pred)
    return float(sk.adjusted_mutual_info_score(true, pred, average_method="arithmetic"))


def ari(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Rand index adjusted for chance (Hubert and Arabie 1985), in [-0.5, 1]. Near 0 for independent labels."""
    _, true, _, pred = _codes(labels_true, labels_pred)
    return float(sk.adjusted_rand_score(true, pred))


def fowlkes_mallows(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Geometric mean of the precision and the recall of pairs of points, in [0, 1].

    It is 0 if no two points share both a class and a cluster.
    """
    _, true, _, pred = _codes(labels_true, labels_pred)
    return float(sk.fowlkes_mallows_score(true, pred))


SCORES = {"acc": accuracy, "nmi": nmi, "ami": ami, "ari": ari, "fmi": fowlkes_mallows, "purity": purity}


def scores(labels_true: ArrayLike, labels_pred: ArrayLike) -> dict[str, float]:
    """All scores that compare with true labels, by name: acc, nmi, ami, ari, fmi, purity."""
    return {name: function(labels_true, labels_pred) for name, function in SCORES.items()}


def silhouette(features: ArrayLike, labels: ArrayLike, *, sample: int = 2000, seed: int = 0) -> float:
    """Mean silhouette with Euclidean distances (Rousseeuw 1987). It needs no true labels.

    Args:
      features: [n, ...], flattened to [n, d].
      labels: [n] cluster of each row.
      sample: largest number of rows to use. If there are more, that many are drawn at random.
      seed: seed of the random choice of rows.

    Returns:
      Mean silhouette in [-1, 1]. NaN where it is undefined: if the rows used lie in a single cluster, or if each of
      them is a cluster of its own.

    Raises:
      ValueError: the lengths differ or are 0. The message names both shapes.
    """
    values = silhouette_samples(features, labels, sample=sample, seed=seed)
    return float("nan") if values is None else float(values.mean())


def silhouette_samples(
    features: ArrayLike, labels: ArrayLike, *, sample: int = 2000, seed: int = 0
) -> np.ndarray | None:
    """The silhouette of each row that `silhouette` uses, float64 [m]; None where it is undefined.

    The arguments and errors are those of `silhouette`. The same rows are used for all labels.
    """
    rows, codes = np.asarray(features), np.asarray(labels)
    if codes.ndim != 1 or rows.shape[:1] != codes.shape or not codes.size:
        raise ValueError(f"features [n, ...] and labels [n] must have equal length, got {rows.shape}, {codes.shape}")
    _check_known("labels", codes)
    if len(codes) > sample:
        chosen = np.random.default_rng(seed).choice(len(codes), sample, replace=False)
        rows, codes = rows[chosen], codes[chosen]
    codes = np.unique(codes, return_inverse=True)[1]
    if not 2 <= codes.max() + 1 < len(codes):
        return None
    # In float64, because distances between close points suffer from cancellation in float32.
    return sk.silhouette_samples(rows.reshape(len(rows), -1).astype(np.float64), codes)


def cluster_sizes(labels: ArrayLike, k: int) -> np.ndarray:
    """Number of points in each cluster.

    Args:
      labels: [n] integers in [0, k).
      k: number of clusters.

    Returns:
      int64 [k]; empty clusters have 0.

    Raises:
      ValueError: `labels` is not [n], or a label is outside of [0, k).
    """
    codes = np.asarray(labels)
    if codes.ndim != 1 or (codes.size and not (codes.min() >= 0 and codes.max() < k)):
        raise ValueError(f"labels must be [n] in [0, {k}), got shape {codes.shape} and values {codes}")
    return np.bincount(codes, minlength=k).astype(np.int64)


def occupied(labels: ArrayLike, k: int) -> int:
    """Number of the `k` clusters that are not empty."""
    return int((cluster_sizes(labels, k) > 0).sum())


def _assignments(p: ArrayLike) -> np.ndarray:
    rows = np.asarray(p, np.float64)
    if rows.ndim != 2 or not rows.size:
        raise ValueError(f"soft assignments must be [n, k] with n and k above 0, got {rows.shape}")
    return rows


def mean_confidence(p: ArrayLike) -> float:
    """Mean over the rows of the largest probability, in [1/k, 1]. `p` is [n, k], each row on the simplex."""
    return float(_assignments(p).max(1).mean())


def assignment_entropy(p: ArrayLike) -> float:
    """Entropy of the mean assignment in nats, in [0, log k]. `p` is [n, k], each row on the simplex.

    It is log k if all clusters have the same weight, and 0 if all rows are in one cluster.
    """
    mean = _assignments(p).mean(0)
    return float(-np.sum(mean * np.log(np.where(mean > 0, mean, 1.0))) + 0.0)


def label_free(probabilities: np.ndarray) -> dict[str, float]:
    """Scores that need no true labels, by name. `probabilities` is [n, k], each row on the simplex."""
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
    """Scores of soft assignments: those of `label_free`, and those of `scores` if there are labels.

    Args:
      probabilities: [n, k], each row on the simplex.
      labels: [n] true classes, or None. Rows with a negative label have no class and are left out of `scores`.
    """
    result = label_free(probabilities)
    if labels is not None:
        known = np.asarray(labels) >= 0
        result |= scores(np.asarray(labels)[known], probabilities.argmax(1)[known])
    return result
