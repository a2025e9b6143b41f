"""What corrections by hand are worth on labelled features, and how right `reject` is.

    python -m benchmarks.corrections --data=FILE.npz,KEY,LABELS [--rows=2000 --seeds=10 --name=NAME
        --output=docs/corrections]

k-means is run once for each seed, with soft assignments as the method `kmeans` gives them. Each result is corrected in
three ways, one at a time: one merge and one split, as a user would do them who sees what most rows of each cluster are;
the labels of the two most typical rows of each cluster; and the labels of as many random rows. Nothing is trained: the
labels are scored by the targets that `edit --retrain` would train on, on the rows that are not labelled. `reject` is
calibrated by clusterings of halves of the rows, by the other seeds, and by both; the expected share of right rows is
compared with the accuracy of the rows that are kept. FILE may be "digits", the pixels of scikit-learn's digits. Each
set is one entry of OUTPUT.json, which a new run replaces.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from clustering_jax import metrics
from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.data.embeddings import unit_rows
from clustering_jax.editing import Request
from clustering_jax.editing import state as states
from clustering_jax.editing.known import known
from clustering_jax.editing.spread import nearest_rows, spread
from clustering_jax.files import read_json, write_json
from clustering_jax.inference.rejection import agreement_of_halves, agreement_of_seeds, rejection
from clustering_jax.inference.rows import medoids
from clustering_jax.inference.rule import Rule

SHARE, NEIGHBOURS = 0.9, 10


def dataset_of(data: str, most: int) -> Dataset:
    """At most so many rows of a set, drawn at random."""
    path, *keys = data.split(",")
    if path == "digits":
        image, labels = load_digits(return_X_y=True)
    else:
        with np.load(path) as arrays:
            image, labels = (arrays[key] for key in keys)
    rows = np.sort(np.random.default_rng(0).permutation(len(image))[:most])
    features = {"image": unit_rows(image[rows].astype(np.float32), path)}
    return Dataset(features, row_ids(len(rows)), labels.reshape(-1)[rows].astype(int), Path(path).stem, "all")


def clustered(rows: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Soft assignments [n, k] of k-means, as the method `kmeans` gives them."""
    squares = KMeans(k, n_init=10, random_state=seed).fit(rows).transform(rows) ** 2
    shares = np.exp(-(squares - squares.min(1, keepdims=True)) / squares.min(1).mean())
    return shares / shares.sum(1, keepdims=True)


def merge_and_split(labels: np.ndarray, clusters: np.ndarray) -> Request:
    """Merges the two clusters that are mostly the same class, and splits the cluster that holds most of a second one.

    Where no two clusters are mostly the same class, there is nothing to correct.
    """
    names = np.unique(clusters)
    table = np.array([[((clusters == c) & (labels == y)).sum() for y in np.unique(labels)] for c in names])
    first, second = table.argmax(1), np.sort(table, 1)[:, -2]
    pairs = [(i, j) for i in range(len(names)) for j in range(i) if first[i] == first[j]]
    if not pairs:
        return Request()
    a, b = max(pairs, key=lambda pair: min(table[pair[0]].max(), table[pair[1]].max()))
    other = max((i for i in range(len(names)) if i not in (a, b)), key=lambda i: second[i])
    return Request(merge=[[int(names[a]), int(names[b])]], split={int(names[other]): 2})


def edited(dataset: Dataset, probabilities: np.ndarray, request: Request) -> np.ndarray:
    """The clusters after corrections."""
    rows, clusters = dataset.features["image"], probabilities.argmax(1)
    state = states.start(probabilities.shape[1], {}, None)
    states.check(state, request)

    def members(cluster: int) -> tuple[list[str], np.ndarray]:
        own = np.flatnonzero(clusters == cluster)
        return [dataset.ids[i] for i in own], rows[own]

    rule = Rule.of_run(None, states.applied(state, request, members).to_json())
    return rule.clusters(rule.mapped(probabilities, lambda: rows))


def taught(dataset: Dataset, probabilities: np.ndarray, labelled: np.ndarray, graph: Any) -> np.ndarray:
    """The targets of all rows, given the labels of some."""
    state = states.start(probabilities.shape[1], {}, None)
    labels = {dataset.ids[i]: f"class {dataset.labels[i]}" for i in labelled}
    spread_out = partial(_spread, probabilities, graph)
    return known(state, dataset.ids, probabilities.argmax(1), labels, (), spread_out)[0].pseudo


def _spread(
    probabilities: np.ndarray, graph: Any, targets: np.ndarray, rows: np.ndarray, known_targets: np.ndarray
) -> np.ndarray:
    return spread(probabilities, targets, rows, known_targets, graph)


def corrected(dataset: Dataset, seed: int, probabilities: np.ndarray, graph: Any) -> Iterator[tuple[str, dict]]:
    """The accuracy before and after each way to correct, on the rows that are not labelled."""
    clusters, n = probabilities.argmax(1), dataset.num_examples
    typical = np.flatnonzero(medoids(dataset.features["image"], clusters, 2))
    drawn = np.random.default_rng(seed).choice(n, len(typical), replace=False)
    request, none = merge_and_split(dataset.labels, clusters), np.zeros(0, int)
    merged = edited(dataset, probabilities, request) if any(request) else clusters
    yield "one merge and one split", {"changed": any(request), **_scored(dataset, seed, clusters, merged, none)}
    for name, labelled in (("labels of typical rows", typical), ("labels of random rows", drawn)):
        after = taught(dataset, probabilities, labelled, graph)
        yield name, {"labels": len(labelled), **_scored(dataset, seed, clusters, after, labelled)}


def _scored(dataset: Dataset, seed: int, before: np.ndarray, after: np.ndarray, labelled: np.ndarray) -> dict[str, Any]:
    rest = np.setdiff1d(np.arange(len(before)), labelled)
    scores = [metrics.accuracy(dataset.labels[rest], clusters[rest]) for clusters in (before, after)]
    return {"seed": seed, "before": scores[0], "after": scores[1], "gain": scores[1] - scores[0]}


def kept_rows(dataset: Dataset, probabilities: list[np.ndarray]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The expected and the true share of right rows among those that `reject` keeps, for each seed."""
    clusters = [p.argmax(1) for p in probabilities]
    rows = dataset.features["image"]
    for seed, p in enumerate(probabilities):
        confidence = p.max(1)
        halves, seeds = agreement_of_halves(rows, clusters[seed]), agreement_of_seeds(clusters, seed)
        for name, agreement in (("halves", halves), ("seeds", seeds), ("halves and seeds", halves * seeds)):
            rule = rejection(confidence, agreement, SHARE)
            kept = confidence >= rule.threshold
            right = metrics.accuracy(dataset.labels[kept], clusters[seed][kept])
            every = metrics.accuracy(dataset.labels, clusters[seed])
            share = float(kept.mean())
            yield name, {"seed": seed, "all": every, "kept": share, "expected": rule.expected, "right": right}


def summary(each: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    """Means and standard deviations over the seeds."""
    lists = {name: [float(entry[name]) for entry in each] for name in names}
    means = {name: {"mean": float(np.mean(v)), "std": float(np.std(v))} for name, v in lists.items()}
    return {**means, "each": each}


def measured(dataset: Dataset, seeds: int) -> dict[str, Any]:
    """The entry of a set."""
    k = len(np.unique(dataset.labels))
    probabilities = [clustered(dataset.features["image"], k, seed) for seed in range(seeds)]
    graph = nearest_rows(dataset.features["image"], NEIGHBOURS)
    ways, rejected = dict[str, list](), dict[str, list]()
    for seed, p in enumerate(probabilities):
        for name, entry in corrected(dataset, seed, p, graph):
            ways.setdefault(name, []).append(entry)
    for name, entry in kept_rows(dataset, probabilities):
        rejected.setdefault(name, []).append(entry)
    return {
        "rows": dataset.num_examples,
        **{name: summary(each, ("before", "after", "gain")) for name, each in ways.items()},
        "reject": {name: summary(each, ("all", "kept", "expected", "right")) for name, each in rejected.items()},
    }


def main() -> None:
    """Reads the arguments, corrects, writes and prints."""
    parser = argparse.ArgumentParser("python -m benchmarks.corrections")
    parser.add_argument("--data", required=True)
    parser.add_argument("--name", default="")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--output", default="docs/corrections")
    arguments = parser.parse_args()
    path, dataset = Path(arguments.output).with_suffix(".json"), dataset_of(arguments.data, arguments.rows)
    entry = measured(dataset, arguments.seeds)
    write_json(path, {**(read_json(path) or {}), arguments.name or dataset.name: entry})
    rejected = {f"reject by {name}": values for name, values in entry["reject"].items()}
    for name, values in {**entry, **rejected}.items():
        if isinstance(values, dict) and "each" in values:
            figures = (f"{k} {v['mean']:.3f}±{v['std']:.3f}" for k, v in values.items() if k != "each")
            print(f"{name}: {', '.join(figures)}", flush=True)


if __name__ == "__main__":
    main()
