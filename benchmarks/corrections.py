"""What corrections by hand are worth on labelled embeddings, and how right `reject` is.

    python -m benchmarks.corrections --data=FILE.npz,KEY,LABELS [--rows=2000 --seeds=10 --steps=300 --batch_size=256
        --retrain_steps=100 --ways=NAMES --name=NAME --output=docs/corrections]

All seeds of TURTLE train side by side. Each result is corrected in three ways, one at a time: one merge and one split,
as a user would do them who sees what most rows of each cluster are; the labels of the two most typical rows of each
cluster; and the labels of as many random rows. The labelled rows are not scored. As a control, the same short phase is
trained without labels. `reject` is calibrated by the nearest rows, and by the other seeds; the expected share of right
rows is compared with the accuracy of the rows that are kept. FILE may be "digits", the pixels of scikit-learn's digits.
Each set is one entry of OUTPUT.json, which a new run replaces.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from clustering_jax import cli, metrics, run
from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.data.embeddings import unit_rows
from clustering_jax.editing import Request, Training, edit
from clustering_jax.files import read_json, write_json
from clustering_jax.inference.predictor import Predictor
from clustering_jax.inference.rejection import agreement_of_neighbours, agreement_of_seeds, rejection
from clustering_jax.inference.results import write_assignments
from clustering_jax.inference.rows import medoids, similar_rows
from clustering_jax.inference.rule import numbers
from clustering_jax.settings import EMBEDDINGS, turtle

SHARE = 0.9
WAYS = ("one merge and one split", "labels of typical rows", "labels of random rows", "no labels")


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


def trained(rows: Dataset, workdir: Path, arguments: argparse.Namespace) -> list[np.ndarray]:
    """Trains TURTLE with all seeds side by side; returns the soft assignments [n, k] of each."""
    config = turtle(
        num_clusters=len(np.unique(rows.labels)),
        num_seeds=arguments.seeds,
        batch_size=arguments.batch_size,
        model={"num_steps": arguments.steps},
        run={"evaluate_every": 0, "checkpoint_every": 0},
        data={**EMBEDDINGS, "path": "in memory"},
    ).to_dict()
    run.train(config, workdir, streams={"train": rows}, quiet=True, reported=False)
    return [predictor_of(workdir, seed).predict_proba(rows.features) for seed in range(arguments.seeds)]


def predictor_of(workdir: Path, seed: int) -> Predictor:
    """The model of one seed, which the workdir then counts as the seed that was kept."""
    write_json(workdir / "result.json", {**read_json(workdir / "result.json"), "seed": seed})
    return Predictor.restore(workdir)


def as_run_of(workdir: Path, rows: Dataset, seed: int, probabilities: np.ndarray) -> np.ndarray:
    """Makes the workdir that of one seed; returns the rows that are the two most typical of each cluster."""
    predictor_of(workdir, seed)
    rank = medoids(rows.features["image"], probabilities.argmax(1), 2)
    write_assignments(workdir / "assignments.csv", rows.ids, probabilities, columns={"typical": numbers(rank, 0)})
    return np.flatnonzero(rank)


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


def clusters_of(workdir: Path) -> np.ndarray:
    """The clusters of a run, int [n]."""
    with (workdir / "assignments.csv").open(newline="") as file:
        return np.array([int(line["cluster"]) for line in csv.DictReader(file)])


def corrected(
    rows: Dataset, seed: int, workdir: Path, probabilities: np.ndarray, arguments: argparse.Namespace
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The accuracy before and after each way to correct, on the rows that are not labelled."""
    clusters, n = probabilities.argmax(1), rows.num_examples
    typical = as_run_of(workdir, rows, seed, probabilities)
    drawn = np.random.default_rng(seed).choice(n, len(typical), replace=False)
    request = merge_and_split(rows.labels, clusters)
    training = Training(arguments.retrain_steps)
    ways: dict[str, tuple[Request, Any, np.ndarray]] = {
        "one merge and one split": (request, None, np.zeros(0, int)),
        "no labels": (Request(), training, np.zeros(0, int)),
        "labels of typical rows": (Request(), training, typical),
        "labels of random rows": (Request(), training, drawn),
    }
    for name in arguments.ways.split(","):
        asked, phase, labelled = ways[name]
        known = {str(i): f"class {rows.labels[i]}" for i in labelled}
        rest, after = np.setdiff1d(np.arange(n), labelled), clusters
        if phase or any(asked):
            with tempfile.TemporaryDirectory() as directory:
                edit(workdir, Path(directory) / "new", asked, rows, training=phase, labels=known, quiet=True)
                after = clusters_of(Path(directory) / "new")
        before, now = (metrics.accuracy(rows.labels[rest], c[rest]) for c in (clusters, after))
        yield name, {"seed": seed, "labels": len(labelled), "before": before, "after": now, "corrected": any(asked)}


def kept_rows(rows: Dataset, probabilities: list[np.ndarray]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The expected and the true share of right rows among those that `reject` keeps, for each seed."""
    clusters = [p.argmax(1) for p in probabilities]
    neighbours, _ = similar_rows(rows.features["image"], 10)
    for seed, p in enumerate(probabilities):
        confidence = p.max(1)
        for name, agreement in (
            ("nearest rows", agreement_of_neighbours(clusters[seed], neighbours)),
            ("other seeds", agreement_of_seeds(clusters, seed)),
        ):
            rule = rejection(confidence, agreement, SHARE)
            kept = confidence >= rule.threshold
            right = metrics.accuracy(rows.labels[kept], clusters[seed][kept])
            every = metrics.accuracy(rows.labels, clusters[seed])
            yield name, {"seed": seed, "kept": kept.mean(), "expected": rule.expected, "right": right, "all": every}


def summary(each: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    """Means and standard deviations over the seeds."""
    lists = {name: [float(entry[name]) for entry in each] for name in names}
    means = {name: {"mean": float(np.mean(v)), "std": float(np.std(v))} for name, v in lists.items()}
    return {**means, "each": each}


def measured(rows: Dataset, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The entry of a set, after each seed that was corrected."""
    with tempfile.TemporaryDirectory() as directory:
        workdir = Path(directory) / "run"
        probabilities = trained(rows, workdir, arguments)
        rejected, ways = dict[str, list](), dict[str, list]()
        for name, entry in kept_rows(rows, probabilities):
            rejected.setdefault(name, []).append({**entry, "kept": float(entry["kept"])})
        first: dict[str, Any] = {"rows": rows.num_examples}
        first["reject"] = {n: summary(e, ("all", "kept", "expected", "right")) for n, e in rejected.items()}
        yield first
        for seed in range(arguments.seeds) if arguments.ways else ():
            for name, entry in corrected(rows, seed, workdir, probabilities[seed], arguments):
                ways.setdefault(name, []).append({**entry, "gain": entry["after"] - entry["before"]})
            yield {**first, **{name: summary(each, ("before", "after", "gain")) for name, each in ways.items()}}


def main() -> None:
    """Reads the arguments, trains, corrects, writes and prints."""
    parser = argparse.ArgumentParser("python -m benchmarks.corrections")
    parser.add_argument("--data", required=True)
    parser.add_argument("--name", default="")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--retrain_steps", type=int, default=100)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--output", default="docs/corrections")
    arguments = parser.parse_args()
    path, rows = Path(arguments.output).with_suffix(".json"), dataset_of(arguments.data, arguments.rows)
    used = ("rows", "steps", "batch_size", "retrain_steps")
    for entry in measured(rows, arguments):
        content = read_json(path) or {}
        settings = {name: getattr(arguments, name) for name in used}
        name = arguments.name or rows.name
        write_json(path, {**content, name: {**content.get(name, {}), "settings": settings, **entry}})
        for name, values in entry.items():
            if isinstance(values, dict) and "gain" in values:
                before, after = values["before"], values["after"]
                print(f"{name}: {before['mean']:.3f} to {after['mean']:.3f} +- {after['std']:.3f}", flush=True)


if __name__ == "__main__":
    cli.use_huge_pages()
    main()
