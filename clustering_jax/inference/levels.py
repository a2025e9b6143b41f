"""Coarser levels of a clustering: a tree of the clusters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage


def tree(rows: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ward's linkage of the clusters' centroids.

    Args:
      rows: [n, d] of norm 1.
      clusters: int [n]; rows of a negative cluster are left out.

    Returns:
      ``(occupied clusters int [m], linkage [m - 1, 4])``, as `scipy.cluster.hierarchy.linkage` returns it.
    """
    occupied = np.unique(clusters[clusters >= 0])
    centroids = [rows[clusters == c].mean(0) for c in occupied]
    return occupied, linkage(np.stack(centroids), "ward") if len(occupied) > 1 else np.zeros((0, 4))


def groups(occupied: np.ndarray, links: np.ndarray, k: int, counts: Sequence[int]) -> dict[str, list[int]]:
    """Cuts the tree into groups of clusters.

    Args:
      occupied: clusters that are not empty, int [m].
      links: linkage [m - 1, 4] of these.
      k: number of clusters.
      counts: largest number of groups of each level.

    Returns:
      For each count, as text, the group of each of the k clusters; -1 for an empty cluster. Groups are numbered from 0
      in the order of their smallest cluster.
    """
    cut = {}
    for count in counts:
        found = fcluster(links, count, "maxclust") if len(links) else np.ones(len(occupied), int)
        _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
        group = np.full(k, -1)
        group[occupied] = np.argsort(np.argsort(first))[inverse]
        cut[str(count)] = group.tolist()
    return cut
