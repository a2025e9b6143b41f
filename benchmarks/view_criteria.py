"""Which score without labels follows the accuracy of clusterings of views? The rank correlation of several with ACC.

    python -m benchmarks.view_criteria --data=DIR --sets=msrc_v1:7,leaves100:100 [--output=docs/view_criteria]

DIR holds SET.npz with arrays `view0`, `view1`, ... and the labels `y`, which only score. The number after the colon is
the number of clusters, k. The clusterings are k-means on all views side by side (columns scaled to [0, 1] or to unit
variance, views as they are or equal) and on each view alone, three seeds each, spectral and Ward clustering, and
k-means with a half and a quarter of k, as a stand-in for collapsed networks. Stability is the normalised mutual
information of a clustering with the same algorithm under other seeds, or on each of two halves of the rows. Sets of
more than 2,500 rows are sampled.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import entropy, spearmanr
from sklearn.cluster import AgglomerativeClustering, KMeans, SpectralClustering
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import normalized_mutual_info_score, silhouette_score
from sklearn.model_selection import cross_val_predict

from benchmarks.named_sets import sets_of
from clustering_jax import metrics
from clustering_jax.files import read_json, write_json
from clustering_jax.methods.view_agreement import agreement, agreements, view_folds

ROWS, SEEDS = 2500, 3
SCALINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "minmax": lambda x: (x - x.min(0)) / np.maximum(np.ptp(x, axis=0), 1e-12),
    "standard": lambda x: (x - x.mean(0)) / np.maximum(x.std(0), 1e-12),
}


def clusterings(views: list[np.ndarray], k: int, seeds: int = SEEDS) -> dict[str, list[np.ndarray]]:
    """Clusters of each candidate, for each of its seeds."""
    found: dict[str, list[np.ndarray]] = {}

    def by_kmeans(name: str, x: np.ndarray, clusters: int = k) -> None:
        found[name] = [KMeans(clusters, n_init=3, random_state=seed).fit_predict(x) for seed in range(seeds)]

    for scaling, scale in SCALINGS.items():
        scaled = [scale(view) for view in views]
        side_by_side = np.concatenate(scaled, 1)
        by_kmeans(scaling, side_by_side)
        by_kmeans(f"{scaling}, equal views", np.concatenate([x / np.sqrt(np.square(x).sum()) for x in scaled], 1))
        for part in (2, 4):
            by_kmeans(f"{scaling}, k/{part}", side_by_side, max(2, k // part))
        spectral = SpectralClustering(k, affinity="nearest_neighbors", random_state=0)
        found[f"{scaling}, spectral"] = [spectral.fit_predict(side_by_side)]
        found[f"{scaling}, Ward"] = [AgglomerativeClustering(k).fit_predict(side_by_side)]
    for number, view in enumerate(views):
        by_kmeans(f"view {number} alone", SCALINGS["standard"](view))
    return found


def accuracy(views: list[np.ndarray], labels: np.ndarray) -> float:
    """`view_agreement` with the accuracy of the prediction in place of the mutual information."""
    each = [cross_val_predict(RidgeClassifier(x.shape[1]), SCALINGS["standard"](x), labels) for x in views]
    return float(np.mean([np.mean(predicted == labels) for predicted in each]))


def mutual(labels: np.ndarray, others: list[np.ndarray]) -> float:
    """Mean mutual information with other clusterings; NaN if there are none."""
    return float(np.mean([normalized_mutual_info_score(labels, other) for other in others])) if others else np.nan


def clusterings_of_halves(views: list[np.ndarray], k: int) -> list[tuple[np.ndarray, dict[str, list[np.ndarray]]]]:
    """The rows of each of two random halves, and the clusters of each candidate on these rows alone."""
    halves = np.array_split(np.random.default_rng(0).permutation(len(views[0])), 2)
    return [(rows, clusterings([view[rows] for view in views], k, seeds=1)) for rows in halves]


def scored(views: list[np.ndarray], y: np.ndarray, k: int) -> list[dict[str, float]]:
    """ACC and all criteria of each candidate, seed 0."""
    folds, found, halves = view_folds(views), clusterings(views, k), clusterings_of_halves(views, k)
    both = np.concatenate([SCALINGS["standard"](view) for view in views], 1)
    rows = []
    for name, runs in found.items():
        labels, others = runs[0], [other[0] for key, other in found.items() if key != name]
        criteria = {
            "agreement of the views": agreement(folds, labels, k),
            "without the entropy of the sizes": float(np.mean(agreements(folds, labels))),
            "accuracy of the prediction": accuracy(views, labels),
            "silhouette": float(silhouette_score(both, labels)),
            "stability over seeds": mutual(labels, runs[1:]),
            "stability over halves": float(np.mean([mutual(labels[rows], half[name]) for rows, half in halves])),
            "consensus with the other candidates": mutual(labels, others),
            "entropy of the sizes": float(entropy(np.bincount(labels))),
        }
        rows.append({"name": name, "acc": metrics.scores(y, labels)["acc"], **criteria})
    return rows


def correlations(rows: list[dict[str, float]]) -> dict[str, float]:
    """The rank correlation of each criterion with ACC, over the candidates that have it."""
    names = [name for name in rows[0] if name not in ("name", "acc")]
    return {
        name: float(spearmanr([r[name] for r in rows], [r["acc"] for r in rows], nan_policy="omit")[0])
        for name in names
    }


def main() -> None:
    """Reads the arguments, scores the sets that the JSON file lacks, and prints the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.view_criteria")
    parser.add_argument("--data", required=True)
    parser.add_argument("--sets", required=True)
    parser.add_argument("--output", default="docs/view_criteria")
    arguments = parser.parse_args()
    path = Path(arguments.output).with_suffix(".json")
    stored = read_json(path) or {}
    for name, path_of_set, k in sets_of(arguments):
        if name not in stored:
            with np.load(path_of_set) as file:
                rows = np.random.default_rng(0).permutation(len(file["y"]))[:ROWS]
                keys = sorted(key for key in file.files if key.startswith("view"))
                views, y = [np.asarray(file[key][rows], np.float64) for key in keys], file["y"][rows]
            stored[name] = scored(views, y, k)
            write_json(path, stored)
        found = correlations(stored[name])
        best = {key: max(stored[name], key=lambda r, key=key: np.nan_to_num(r[key], nan=-1))["acc"] for key in found}
        print(name, {key: (round(value, 2), round(best[key], 3)) for key, value in found.items()}, flush=True)


if __name__ == "__main__":
    main()
