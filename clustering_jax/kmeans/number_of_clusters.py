"""How many clusters, without labels: the silhouette of k-means over a range of numbers, or a vote of four criteria."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.cluster import KMeans

from clustering_jax import metrics
from clustering_jax.data.base import Dataset
from clustering_jax.errors import UserError
from clustering_jax.kmeans import criteria
from clustering_jax.kmeans.lloyd import assign, kmeans
from clustering_jax.typing import Array

# More rows change the curve less than another seed does.
SAMPLE = 10_000
# Restarts of each k-means; clusters that are merged, by the greatest number in the range; resamples of the vote.
RESTARTS, OVER, RESAMPLES = 4, 3, 400


def num_clusters(dataset: Dataset, cluster_range: Sequence[int], *, seed: int) -> dict[str, Any]:
    """The number whose k-means clusters have the greatest mean silhouette, the least of equals.

    Of embeddings, or of all views side by side; of a sample of 10,000 rows where there are more.

    Args:
      cluster_range: ``(least, most)``, of the numbers tried. seed: of k-means and of the sample.

    Returns:
      ``{"num_clusters": K, "criterion": what it is, "curve": [[k, mean silhouette in [-1, 1]], ...]}``

    Raises:
      UserError: pixels, whose distances tell little; rows that are all equal; or a range that is empty or reaches
        beyond the rows.
    """
    rows = _rows(dataset)
    n = min(len(rows), SAMPLE)
    if list(map(type, cluster_range)) != [int, int] or not 2 <= cluster_range[0] <= cluster_range[1] < n:
        found = ", ".join(map(str, cluster_range))
        raise UserError(
            f"cluster_range is ({found}): choose (least, most), 2 <= least <= most < {n}, the rows compared"
        )
    least, most = cluster_range
    rows = rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:n])]
    curve = []
    for k in range(least, most + 1):
        labels = KMeans(k, n_init=4, random_state=seed).fit_predict(rows)
        value = metrics.silhouette(rows, labels, seed=seed)
        # It has none where one cluster holds the whole sample.
        curve += [] if math.isnan(value) else [[k, value]]
    if not curve:
        raise UserError(f"no number of clusters between {least} and {most} has a silhouette: are the rows all equal?")
    best = max(curve, key=lambda point: point[1])[0]
    return {"num_clusters": best, "criterion": f"mean silhouette of k-means on {n} rows", "curve": curve}


def told(found: dict[str, Any]) -> str:
    """The choice and its curve in a line."""
    curve = " ".join(f"{k}:{value:.3f}" for k, value in found["curve"])
    return f"num_clusters {found['num_clusters']}, chosen by {found['criterion']} ({curve})"


def _rows(dataset: Dataset) -> np.ndarray:
    features = [rows for name, rows in dataset.features.items() if name != "mask"]
    if any(rows.ndim != 2 for rows in features):
        raise UserError("num_clusters is auto, which needs embeddings or views: of images, say the number")
    return np.concatenate(features, axis=1)


def curves(rows: np.ndarray, ks: Sequence[int], *, seed: int, samples: int) -> dict[str, np.ndarray]:
    """Each of `criteria.RULES` over `ks`, float64 [samples, ks]: every sample splits the rows in random halves anew.

    Args:
      rows: float32 [n, d], principal components. ks: consecutive numbers, 2 <= ks < n // 2. samples: 2 or more.
    """
    half, key = len(rows) // 2, jax.random.key(seed)
    found: dict[str, list[np.ndarray]] = {name: [] for name in criteria.RULES}
    for sample in range(samples):
        order = np.random.default_rng((seed, sample)).permutation(len(rows))
        values = _sample(jax.random.fold_in(key, sample), rows[order[:half]], rows[order[half : 2 * half]], ks, sample)
        for name in found:
            found[name].append(values[name])
    return {name: np.stack(values) for name, values in found.items()}


def _sample(key: Array, rows: np.ndarray, others: np.ndarray, ks: Sequence[int], seed: int) -> dict[str, np.ndarray]:
    """Each criterion over `ks` on two halves of the rows."""
    fit = partial(_fits, ks=tuple(ks))
    first, second, nothing, over = jax.random.split(key, 4)
    own, crossed, inertia = fit(first, rows, others)
    theirs = fit(second, others, rows)[0]
    uniform = criteria.reference(rows, seed=seed)
    expected = fit(nothing, uniform, uniform)[2]
    many = min(OVER * ks[-1], max(ks[-1] + 1, len(rows) // 5))
    merged = kmeans(over, rows, many, restarts=RESTARTS)
    heights = criteria.merges(merged.centers, np.bincount(merged.labels, minlength=many))
    return {
        "silhouette": criteria.silhouettes(rows, own, seed=seed),
        "gap": criteria.gaps(inertia, expected),
        "stability": criteria.agreements(crossed, theirs),
        "merge": criteria.jumps(heights, ks),
    }


def _fits(key: Array, rows: np.ndarray, others: np.ndarray, *, ks: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """k-means of `rows` for each of `ks`: labels [ks, n] of `rows` and of `others`, inertia [ks]."""
    return jax.device_get(_device_fits(jax.random.split(key, len(ks)), jnp.asarray(ks), rows, others, most=ks[-1]))


@partial(jax.jit, static_argnames="most")
def _device_fits(keys: Array, ks: Array, rows: Array, others: Array, *, most: int) -> tuple[Array, ...]:
    def fit(drawn: tuple[Array, Array]) -> tuple[Array, ...]:
        found = kmeans(drawn[0], rows, most, restarts=RESTARTS, count=drawn[1])
        return found.labels, assign(others, found.centers, count=drawn[1])[0], found.inertia

    return jax.lax.map(fit, (keys, ks))


def recommend(found: Mapping[str, np.ndarray], ks: Sequence[int], *, seed: int) -> dict[str, Any]:
    """The vote of the criteria: the median (the lower of two), and where 80 % of the votes lie under resampling.

    Args:
      found: as `curves` has them. seed: of the resamples of the samples, in each of which every criterion votes.

    Returns:
      ``{"num_clusters": K, "interval": [low, high], "votes": {name: K or None}, "agree": how many votes are within
      2 of K, "curve": [{"k": k, name: mean, name_std: ...}, ...]}``
    """
    votes = {name: _vote(name, values, ks) for name, values in found.items()}
    rng, count = np.random.default_rng(seed), len(next(iter(found.values())))
    drawn = rng.integers(count, size=(RESAMPLES, count))
    pool = [_vote(name, values[rows], ks) for rows in drawn for name, values in found.items()]
    low, high = np.quantile([k for k in pool if k is not None], [0.1, 0.9], method="nearest")
    cast = sorted(k for k in votes.values() if k is not None)
    best = cast[(len(cast) - 1) // 2]
    points = [
        {"k": k}
        | {name: float(values[:, i].mean()) for name, values in found.items()}
        | {f"{name}_std": float(values[:, i].std()) for name, values in found.items()}
        for i, k in enumerate(ks)
    ]
    agree = sum(abs(k - best) <= 2 for k in cast)
    return {"num_clusters": best, "interval": [int(low), int(high)], "votes": votes, "agree": agree, "curve": points}


def _vote(name: str, values: np.ndarray, ks: Sequence[int]) -> int | None:
    index = criteria.RULES[name](values)
    return None if index is None else ks[index]
