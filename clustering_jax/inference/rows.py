"""What a run says of each row besides its cluster: the second choice, how odd the row is, typical rows."""

from __future__ import annotations

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata

from clustering_jax.kmeans.neighbours import nearest_neighbours

# Numbers of a block of similarities.
BLOCK = 1 << 22


def second_best(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The second most probable cluster of each row.

    Args:
      probabilities: soft assignments [n, k], with k of 2 or more.

    Returns:
      ``(column int [n], its probability [n])``. Of equal probabilities, the column with the larger number is second.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, 1]
    return order, np.take_along_axis(probabilities, order[:, None], 1)[:, 0]


def unit(embedding: np.ndarray) -> np.ndarray:
    """The rows as float32 of norm 1; a row of zeros stays zero.

    Args:
      embedding: [n, d].
    """
    rows = np.asarray(embedding, np.float32)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1)


def similar_rows(rows: np.ndarray, k: int) -> np.ndarray:
    """The nearest rows of each row, the nearest first: row numbers int [n, k].

    Args:
      rows: [n, d] of norm 1.
      k: number of neighbours; n - 1 where there are fewer.
    """
    return np.asarray(nearest_neighbours(jnp.asarray(rows), min(k, len(rows) - 1)))


def cosines(rows: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Cosines of each row to its neighbours, float32 [n, k].

    Args:
      rows: [n, d] of norm 1.
      neighbours: row numbers, int [n, k].
    """
    result = np.empty(neighbours.shape, np.float32)
    for part in blocks(len(rows), neighbours.shape[1] * rows.shape[1]):
        result[part] = np.einsum("nd,nkd->nk", rows[part], rows[neighbours[part]])
    return result


def outlier_scores(near: np.ndarray) -> np.ndarray:
    """How odd each row is: the share of the rows whose distance to their neighbours is at most its own.

    Args:
      near: cosines of each row to its nearest neighbours, [n, k].

    Returns:
      float [n] in (0, 1]: 1 for the row that is farthest from its neighbours, by the mean cosine distance.
    """
    return rankdata(-near.mean(1), method="max") / len(near)


def medoids(rows: np.ndarray, clusters: np.ndarray, count: int = 3) -> np.ndarray:
    """The most typical rows of each cluster: those with the largest mean cosine to all of its rows.

    Args:
      rows: [n, d] of norm 1.
      clusters: cluster of each row, int [n]; rows of a negative cluster are left out.
      count: number of rows of each cluster.

    Returns:
      int [n]: 1 for the medoid of a cluster, 2 for the next, up to `count`; 0 for all others.
    """
    rank = np.zeros(len(rows), int)
    for cluster in np.unique(clusters[clusters >= 0]):
        own = np.flatnonzero(clusters == cluster)
        # The mean cosine to all rows is the cosine to their mean, up to a factor.
        best = np.argsort(-(rows[own] @ rows[own].mean(0)), kind="stable")[:count]
        rank[own[best]] = np.arange(len(best)) + 1
    return rank


def blocks(n: int, width: int) -> Iterator[slice]:
    """Parts of n rows, such that a part of `width` numbers for each row has about BLOCK numbers."""
    size = max(BLOCK // max(width, 1), 1)
    return (slice(start, start + size) for start in range(0, n, size))
