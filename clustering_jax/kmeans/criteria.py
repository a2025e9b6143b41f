"""Criteria for the number of clusters that need no labels: pure functions of rows, of labels, or of curves over k.

A curve is [number of k's]; curves [replicates, number of k's] are of random halves of the rows. Each criterion comes
with its rule, which turns the curves into the index of the k it votes for, or None where it has no vote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from clustering_jax import metrics

# Points of the silhouette of one clustering.
SILHOUETTE = 1000


def silhouettes(rows: np.ndarray, labels: np.ndarray, *, seed: int) -> np.ndarray:
    """Mean silhouette of each clustering, NaN where it has none: rows [n, d], labels int [ks, n] to [ks].

    Rousseeuw, Silhouettes: a graphical aid to the interpretation and validation of cluster analysis, Journal of
    Computational and Applied Mathematics 1987. Of 1,000 points drawn by `seed`, the same for all.
    """
    return np.array([metrics.silhouette(rows, found, sample=SILHOUETTE, seed=seed) for found in labels])


def agreements(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """ARI of each pair of clusterings of the same rows: two int [ks, n] to [ks] in [-.5, 1].

    Stability: where both were learnt on halves of the rows without a row in common, by different seeds. Ben-Hur,
    Elisseeff and Guyon, A stability based method for discovering structure in clustered data, PSB 2002; halves that
    label each other as in Tibshirani and Walther, Cluster validation by prediction strength, JCGS 2005. Adjusted for
    chance, agreement that comes with few clusters alone counts nothing.
    """
    return np.array([metrics.ari(a, b) for a, b in zip(first, second, strict=True)])


def reference(rows: np.ndarray, *, seed: int) -> np.ndarray:
    """As many rows without clusters: uniform in the box of `rows` [n, d], whose columns are principal components."""
    return np.random.default_rng(seed).uniform(rows.min(0), rows.max(0), rows.shape).astype(rows.dtype)


def gaps(inertia: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The gap statistic ``log W_reference(k) - log W(k)``, W the inertia: two [..., ks], both of as many rows.

    Tibshirani, Walther and Hastie, Estimating the number of clusters in a data set via the gap statistic, JRSS B
    2001. NaN where a clustering has no inertia: as many clusters as distinct rows.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log(expected) - np.log(inertia)
    return np.where(np.isfinite(found), found, np.nan)


def merges(centers: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Ward's merging of clusters, centers [c, d] and sizes [c], down to one: heights [c - 1], the last merge first.

    Entry i is the square root of twice what merging i + 2 clusters to i + 1 adds to the inertia, and never rises.
    Clusters without rows merge at 0. Ward, Hierarchical grouping to optimize an objective function, JASA 1963.
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
    """How much higher the merge that ends k clusters is than the one before it, as log ratio: [c - 1] to [ks].

    Over-clustering: parts of one cluster merge low, clusters high, so that the greatest jump is at their number.
    """
    k = np.asarray(ks)
    before, after = heights[k - 1], heights[k - 2]
    return np.log(np.maximum(after, 1e-30)) - np.log(np.maximum(before, 1e-30))


def peak(curves: np.ndarray) -> int | None:
    """Rule of silhouette and merges: where the mean is greatest, the first of equals."""
    mean = curves.mean(0)
    return None if np.isnan(mean).all() else int(np.nanargmax(mean))


def last_stable(curves: np.ndarray) -> int | None:
    """Rule of stability: the greatest k whose mean is within one standard error of the greatest mean.

    Clusters joined in pairs are as stable as they are: of numbers equally stable the greatest tells most.
    """
    mean, error = curves.mean(0), curves.std(0, ddof=1) / np.sqrt(len(curves))
    best = mean.argmax()
    return int(np.flatnonzero(mean >= mean[best] - error[best])[-1])


def first_gap(curves: np.ndarray) -> int | None:
    """Rule of the gap: the first k with gap(k) >= gap(k + 1) - s, s the spread of a rise times sqrt(1 + 1 / samples).

    The paper's s is that of the reference alone; here the rows vary too, and with k and k + 1 together. None where the
    gap still rises at the end of the range.
    """
    rises = np.diff(curves, axis=1)
    stops = np.flatnonzero(rises.mean(0) <= rises.std(0) * np.sqrt(1 + 1 / len(curves)))
    return int(stops[0]) if len(stops) else None


RULES: dict[str, Callable[[np.ndarray], int | None]] = {
    "silhouette": peak,
    "gap": first_gap,
    "stability": last_stable,
    "merge": peak,
}
