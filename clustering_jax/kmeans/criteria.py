"""Criteria for the number of clusters that need no true labels. All of them are pure functions.

A curve holds the value of a criterion for each number of clusters k in a list ``ks``. Curves are [samples, number of
ks], one curve for each random split of the rows into halves. Each criterion has a rule in `RULES`, which turns its
curves into the index of the k that it votes for, or into None if it has no vote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from clustering_jax import metrics

# Largest number of rows from which the silhouette of one clustering is computed.
SILHOUETTE = 1000


def silhouettes(rows: np.ndarray, labels: np.ndarray, *, seed: int) -> np.ndarray:
    """Mean silhouette of each clustering.

    Args:
      rows: [n, d] data.
      labels: int [number of ks, n] clusterings of the rows.
      seed: seed of the sample of up to 1,000 rows from which all silhouettes are computed.

    Returns:
      [number of ks] in [-1, 1]; NaN where the silhouette is undefined.

    References:
      - Rousseeuw, Silhouettes: a graphical aid to the interpretation and validation of cluster analysis, Journal of
        Computational and Applied Mathematics 1987.
    """
    return np.array([metrics.silhouette(rows, each, sample=SILHOUETTE, seed=seed) for each in labels])


def agreements(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Adjusted Rand index (ARI) of pairs of clusterings of the same rows.

    This measures stability if the two clusterings were fitted to disjoint halves of the data, with different seeds.
    With few clusters, two clusterings agree often by chance. The adjustment of the ARI removes this effect.

    Args:
      first: int [number of ks, n] clusterings.
      second: int [number of ks, n] other clusterings of the same rows.

    Returns:
      [number of ks] in [-0.5, 1].

    References:
      Ben-Hur, Elisseeff and Guyon, A stability based method for discovering structure in clustered data, PSB 2002.
      Tibshirani and Walther, Cluster validation by prediction strength, JCGS 2005: each half labels the other one.
    """
    return np.array([metrics.ari(a, b) for a, b in zip(first, second, strict=True)])


def reference(rows: np.ndarray, *, seed: int) -> np.ndarray:
    """Reference data without clusters, as many rows as `rows`: uniform in the bounding box of `rows`.

    Args:
      rows: [n, d] principal components.
      seed: seed of the random numbers.

    Returns:
      [n, d] of the same dtype.
    """
    return np.random.default_rng(seed).uniform(rows.min(0), rows.max(0), rows.shape).astype(rows.dtype)


def gaps(inertia: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The gap statistic ``log W_reference(k) - log W(k)``, where W is the inertia.

    Args:
      inertia: [..., number of ks] inertia of the clusterings of the data.
      expected: [..., number of ks] inertia of the clusterings of as many rows of `reference`.

    Returns:
      [..., number of ks]; NaN where an inertia is 0, which happens with as many clusters as distinct rows.

    References:
      - Tibshirani, Walther and Hastie, Estimating the number of clusters in a data set via the gap statistic, JRSS B
        2001.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.log(expected) - np.log(inertia)
    return np.where(np.isfinite(gap), gap, np.nan)


def merges(centers: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Merges clusters with Ward's method until a single cluster is left.

    Args:
      centers: [c, d] centroids.
      sizes: [c] number of rows of each cluster; clusters without rows merge at height 0.

    Returns:
      Heights of the merges, float64 [c - 1], the last merge first, so they never increase. Entry i belongs to the merge
      from i + 2 clusters to i + 1. It is the square root of twice the increase of the inertia.

    References:
      Ward, Hierarchical grouping to optimize an objective function, JASA 1963.
    """
    centers, sizes, heights = np.array(centers, np.float64), np.array(sizes, np.float64), []
    while len(sizes) > 1:
        weights = 2 * sizes[:, None] * sizes / np.maximum(sizes[:, None] + sizes, 1)
        costs = weights * np.sum((centers[:, None] - centers) ** 2, axis=2)
        np.fill_diagonal(costs, np.inf)
        i, j = np.unravel_index(costs.argmin(), costs.shape)
        heights.append(np.sqrt(costs[i, j]))
        total = sizes[i] + sizes[j]
        centers[i] = (sizes[i] * centers[i] + sizes[j] * centers[j]) / max(total, 1)
        sizes[i] = total
        centers, sizes = np.delete(centers, j, 0), np.delete(sizes, j)
    return np.maximum.accumulate(heights)[::-1]


def jumps(heights: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """Log ratio of the heights of two successive merges: the merge from k to k - 1 clusters, and the one before it.

    The data are over-clustered first. Parts of the same cluster merge at small heights and different clusters at large
    heights, so the largest jump is at the true number of clusters.

    Args:
      heights: [c - 1] heights of `merges`.
      ks: numbers of clusters, each in [2, c - 1].

    Returns:
      [number of ks].
    """
    k = np.asarray(ks)
    before, after = heights[k - 1], heights[k - 2]
    return np.log(np.maximum(after, 1e-30)) - np.log(np.maximum(before, 1e-30))


def peak(curves: np.ndarray) -> int | None:
    """Rule of the silhouette and of the merges: the largest mean over the samples; the first one in a tie."""
    mean = curves.mean(0)
    return None if np.isnan(mean).all() else int(np.nanargmax(mean))


def last_stable(curves: np.ndarray) -> int | None:
    """Rule of the stability: the largest k whose mean is within one standard error of the largest mean.

    Joining stable clusters gives stable clusters too. Of several numbers that are equally stable, the largest one
    describes the data in most detail.
    """
    mean, error = curves.mean(0), curves.std(0, ddof=1) / np.sqrt(len(curves))
    best = mean.argmax()
    return int(np.flatnonzero(mean >= mean[best] - error[best])[-1])


def first_gap(curves: np.ndarray) -> int | None:
    """Rule of the gap statistic: the first k with gap(k) >= gap(k + 1) - s.

    Here s is the standard deviation over the samples of gap(k + 1) - gap(k), times sqrt(1 + 1 / samples). In the paper
    only the reference varies. Here the rows vary too, and they vary together for k and k + 1. The rule returns None if
    the gap still increases at the end of the range.
    """
    increases = np.diff(curves, axis=1)
    stops = np.flatnonzero(increases.mean(0) <= increases.std(0) * np.sqrt(1 + 1 / len(curves)))
    return int(stops[0]) if len(stops) else None


RULES: dict[str, Callable[[np.ndarray], int | None]] = {
    "silhouette": peak,
    "gap": first_gap,
    "stability": last_stable,
    "merge": peak,
}
