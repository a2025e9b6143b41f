"""Pseudo-labels of the phase "boost": TCL, Li, Yang, Peng, Li, Huang and Peng, IJCV 2022 (arXiv 2210.11680)."""

from __future__ import annotations

import math

import numpy as np


def boost_labels(
    p: np.ndarray, present: np.ndarray, *, share: float, threshold: float, least: float = 0.0
) -> np.ndarray:
    """Confident pseudo-labels, class by class.

    In each cluster the most confident rows qualify, at most ``ceil(share * n / k)`` of them, so that no cluster gets
    more new labels than any other may. A row that qualifies and has no label takes its cluster as label. A row that has
    one keeps it. Last of all, a row below the threshold loses its label. The authors do the same with each batch in
    place of all rows.

    Args:
      p: [n, k] soft assignments of the plain images.
      present: int [n] labels so far; -1 for a row without one.
      share: gamma, the part of an evenly sized cluster that may get labels at a time, in (0, 1].
      threshold: alpha, the smallest confidence of a label, in [0, 1).
      least: part of an evenly sized cluster that may have labels below the threshold, in [0, 1]; 0 in the paper.

    Returns:
      int32 [n] in [-1, k).
    """
    kept = most_confident(p, least)
    labels = np.where((present < 0) & (most_confident(p, share) | kept), p.argmax(1), present)
    return np.where((p.max(1) < threshold) & ~kept, -1, labels).astype(np.int32)


def most_confident(p: np.ndarray, share: float) -> np.ndarray:
    """The most confident rows of each cluster, bool [n]: at most ``ceil(share * n / k)`` of each.

    Args:
      p: [n, k] soft assignments.
      share: part of an evenly sized cluster, in [0, 1].
    """
    n, k = p.shape
    cluster, confidence = p.argmax(1), p.max(1)
    quota, found = math.ceil(share * n / k), np.zeros(n, bool)
    for number in range(k):
        members = np.flatnonzero(cluster == number)
        # Stable, so that ties go to the rows that come first.
        found[members[np.argsort(-confidence[members], kind="stable")[:quota]]] = True
    return found


def died(before: np.ndarray, now: np.ndarray) -> list[int]:
    """Clusters that had rows and have none now. Both arguments are the clusters of the rows, int [n]."""
    return np.setdiff1d(before, now).tolist()
