"""Chooses the number of clusters without labels.

`num_clusters` takes the number with the best silhouette of k-means. `recommend` takes a vote of four criteria.
"""

from __future__ import annotations

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

# Rows of the silhouette. With more rows, the curve changes less than it does with another seed.
SAMPLE = 10_000
# Restarts of each k-means; clusters of the over-clustering, as a multiple of the largest k; resamples of the vote.
RESTARTS, OVER, RESAMPLES = 4, 3, 400


def num_clusters(dataset: Dataset, cluster_range: Sequence[int], *, seed: int) -> dict[str, Any]:
    """The number of clusters for which k-means has the largest mean silhouette; the smallest number in a tie.

    How sure the choice is comes from a bootstrap: the silhouettes of the rows are resampled 400 times. The rows are
    embeddings, or all views concatenated. If there are more than 10,000 rows, a random sample of 10,000 is used.

    Args:
      dataset: data set of embeddings or views.
      cluster_range: ``(smallest, largest)`` number to try; both are included.
      seed: seed of k-means and of the sample.

    Returns:
      ``{"num_clusters": K, "interval": [low, high] of 80 % of the resamples, "share": share of the resamples that
      choose K, "criterion": description, "curve": [[k, mean silhouette in [-1, 1]], ...]}``

    Raises:
      UserError: the data are images, because distances between pixels say little; all rows are equal; or the range is
        empty or exceeds the number of rows.
    """
    rows = _rows(dataset)
    n = min(len(rows), SAMPLE)
    if list(map(type, cluster_range)) != [int, int] or not 2 <= cluster_range[0] <= cluster_range[1] < n:
        values = ", ".join(map(str, cluster_range))
        raise UserError(
            f"cluster_range is ({values}): choose (smallest, largest) with 2 <= smallest <= largest < {n}, the number "
            "of rows compared"
        )
    smallest, largest = cluster_range
    rows = rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:n])]
    silhouettes: dict[int, np.ndarray] = {}
    for k in range(smallest, largest + 1):
        labels = KMeans(k, n_init=4, random_state=seed).fit_predict(rows)
        of_rows = metrics.silhouette_samples(rows, labels, seed=seed)
        # There is none if one cluster holds the whole sample.
        silhouettes |= {} if of_rows is None else {k: of_rows}
    if not silhouettes:
        raise UserError(
            f"no number of clusters between {smallest} and {largest} has a silhouette: check whether all rows are equal"
        )
    curve = [[k, float(values.mean())] for k, values in silhouettes.items()]
    best = int(max(curve, key=lambda point: point[1])[0])
    criterion = f"mean silhouette of k-means on {n} rows"
    return {"num_clusters": best, **_certainty(silhouettes, best, seed), "criterion": criterion, "curve": curve}


def _certainty(silhouettes: Mapping[int, np.ndarray], best: int, seed: int) -> dict[str, Any]:
    """How often resampled rows choose `best`, and between which numbers 80 % of the choices lie."""
    ks, values = np.array(list(silhouettes)), np.stack(list(silhouettes.values()))
    rng, count = np.random.default_rng(seed), values.shape[1]
    chosen = [ks[values[:, rng.integers(count, size=count)].mean(1).argmax()] for _ in range(RESAMPLES)]
    low, high = np.quantile(chosen, [0.1, 0.9], method="nearest")
    return {"interval": [int(low), int(high)], "share": float(np.mean(np.equal(chosen, best)))}


def summary_line(choice: dict[str, Any]) -> str:
    """The result of `num_clusters` as one line of text: the choice, how sure it is, the criterion and the curve."""
    curve = " ".join(f"{k}:{value:.3f}" for k, value in choice["curve"])
    low, high = choice["interval"]
    sure = f"{100 * choice['share']:.0f} % of the resamples choose it, 80 % choose {low} to {high}"
    return f"num_clusters {choice['num_clusters']}, chosen by {choice['criterion']}; {sure} ({curve})"


def _rows(dataset: Dataset) -> np.ndarray:
    features = [rows for name, rows in dataset.features.items() if name != "mask"]
    if any(rows.ndim != 2 for rows in features):
        raise UserError("num_clusters is auto, which needs embeddings or views: set a number for images")
    return np.concatenate(features, axis=1)


def curves(rows: np.ndarray, ks: Sequence[int], *, seed: int, samples: int) -> dict[str, np.ndarray]:
    """The curve of each criterion of `criteria.RULES` over `ks`. Every sample splits the rows into two random halves.

    Args:
      rows: float32 [n, d] principal components.
      ks: consecutive numbers of clusters, each in [2, n // 2).
      seed: seed of the splits and of k-means.
      samples: number of splits, at least 2.

    Returns:
      A float64 array [samples, number of ks] for each criterion, by name.
    """
    half, key = len(rows) // 2, jax.random.key(seed)
    by_criterion: dict[str, list[np.ndarray]] = {name: [] for name in criteria.RULES}
    for sample in range(samples):
        order = np.random.default_rng((seed, sample)).permutation(len(rows))
        values = _sample(jax.random.fold_in(key, sample), rows[order[:half]], rows[order[half : 2 * half]], ks, sample)
        for name, collected in by_criterion.items():
            collected.append(values[name])
    return {name: np.stack(collected) for name, collected in by_criterion.items()}


def _sample(key: Array, rows: np.ndarray, others: np.ndarray, ks: Sequence[int], seed: int) -> dict[str, np.ndarray]:
    """The value of each criterion for each of `ks`, from two halves of the rows."""
    fit = partial(_fits, ks=tuple(ks))
    first_key, second_key, reference_key, over_key = jax.random.split(key, 4)
    labels, labels_of_others, inertia = fit(first_key, rows, others)
    others_own_labels = fit(second_key, others, rows)[0]
    uniform = criteria.reference(rows, seed=seed)
    reference_inertia = fit(reference_key, uniform, uniform)[2]
    many = min(OVER * ks[-1], max(ks[-1] + 1, len(rows) // 5))
    merged = kmeans(over_key, jnp.asarray(rows), many, restarts=RESTARTS)
    heights = criteria.merges(np.asarray(merged.centers), np.bincount(merged.labels, minlength=many))
    return {
        "silhouette": criteria.silhouettes(rows, labels, seed=seed),
        "gap": criteria.gaps(inertia, reference_inertia),
        "stability": criteria.agreements(labels_of_others, others_own_labels),
        "merge": criteria.jumps(heights, ks),
    }


def _fits(key: Array, rows: np.ndarray, others: np.ndarray, *, ks: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """k-means of `rows` for each of `ks`.

    Returns:
      Labels of `rows` and nearest clusters of `others`, both int [number of ks, n], and the inertia [number of ks].
    """
    return jax.device_get(_device_fits(jax.random.split(key, len(ks)), jnp.asarray(ks), rows, others, most=ks[-1]))


@partial(jax.jit, static_argnames="most")
def _device_fits(keys: Array, ks: Array, rows: Array, others: Array, *, most: int) -> tuple[Array, ...]:
    def fit(key_and_k: tuple[Array, Array]) -> tuple[Array, ...]:
        key, k = key_and_k
        result = kmeans(key, rows, most, restarts=RESTARTS, count=k)
        return result.labels, assign(others, result.centers, count=k)[0], result.inertia

    return jax.lax.map(fit, (keys, ks))


def recommend(curves: Mapping[str, np.ndarray], ks: Sequence[int], *, seed: int) -> dict[str, Any]:
    """Chooses the number of clusters by a vote of the criteria.

    The choice is the median of the votes; of two middle votes, the smaller one. The interval contains 80 % of the votes
    when the samples are resampled with replacement (bootstrap).

    Args:
      curves: [samples, number of ks] for each criterion, from the function `curves`.
      ks: numbers of clusters that the columns belong to.
      seed: seed of the bootstrap.

    Returns:
      ``{"num_clusters": K, "interval": [low, high], "votes": {name: K or None}, "agree": number of votes within
      2 of K, "curve": [{"k": k, name: mean, name_std: standard deviation, ...}, ...]}``
    """
    votes = {name: _vote(name, values, ks) for name, values in curves.items()}
    rng, count = np.random.default_rng(seed), len(next(iter(curves.values())))
    resamples = rng.integers(count, size=(RESAMPLES, count))
    pool = [_vote(name, values[rows], ks) for rows in resamples for name, values in curves.items()]
    low, high = np.quantile([k for k in pool if k is not None], [0.1, 0.9], method="nearest")
    cast = sorted(k for k in votes.values() if k is not None)
    best = cast[(len(cast) - 1) // 2]
    points = [
        {"k": k}
        | {name: float(values[:, i].mean()) for name, values in curves.items()}
        | {f"{name}_std": float(values[:, i].std()) for name, values in curves.items()}
        for i, k in enumerate(ks)
    ]
    agree = sum(abs(k - best) <= 2 for k in cast)
    return {"num_clusters": best, "interval": [int(low), int(high)], "votes": votes, "agree": agree, "curve": points}


def _vote(name: str, values: np.ndarray, ks: Sequence[int]) -> int | None:
    index = criteria.RULES[name](values)
    return None if index is None else ks[index]
