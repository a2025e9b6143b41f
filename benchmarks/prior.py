"""TURTLE's prior on classes of unequal sizes: uniform, learnt, none, and the true shares, beside k-means.

    python -m benchmarks.prior --data=DIR --workdir=RUNS
        [--largest=200 --ratio=10 --seeds=10 --steps=1000 --output=docs/prior]

DIR holds labelled embeddings, as `python -m clustering_jax.embed` writes them (split "train"). The first class keeps
its first LARGEST rows, the last one LARGEST / RATIO, the others lie between on a geometric scale. All rows are trained
and scored at the last step; labels score, and give the true shares to the one row that says so.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cluster import KMeans

from benchmarks.heads import RUN, SCORES, line
from clustering_jax import cli, data, metrics, run
from clustering_jax.data.base import Dataset
from clustering_jax.files import read_json, write_json
from clustering_jax.settings import turtle


def imbalanced(dataset: Dataset, largest: int, ratio: float) -> tuple[Dataset, list[int]]:
    """The first rows of each class, and their numbers."""
    classes = np.unique(dataset.labels)
    sizes = [round(largest * ratio ** (-i / (len(classes) - 1))) for i in range(len(classes))]
    rows = [np.flatnonzero(dataset.labels == c)[:size] for c, size in zip(classes, sizes, strict=True)]
    chosen = np.sort(np.concatenate(rows))
    features = {"image": dataset.features["image"][chosen]}
    ids = [dataset.ids[row] for row in chosen]
    return Dataset(features, ids, dataset.labels[chosen], dataset.name, "imbalanced"), [len(r) for r in rows]


def kmeans_row(rows: Dataset, num_clusters: int, seeds: int) -> dict[str, Any]:
    """k-means with ten restarts, once for each seed."""
    each = []
    for seed in range(seeds):
        labels = KMeans(num_clusters, n_init=10, random_state=seed).fit_predict(rows.features["image"])
        found = metrics.scores(rows.labels, labels)
        each.append({"seed": seed, **{name: found[name] for name in SCORES}})
    return {"each": each}


def turtle_row(rows: Dataset, prior: str, num_clusters: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The scores of every seed of TURTLE with a prior."""
    model = {"prior": prior, "num_steps": arguments.steps}
    config = turtle(num_clusters=num_clusters, num_seeds=arguments.seeds, model=model, run=RUN).to_dict()
    config["batch_size"] = rows.num_examples
    path = Path(arguments.workdir) / f"{prior[:7]}".replace(",", "_")
    result = run.train(config, path, streams={"train": rows}, reported=False)
    each = result.get("seeds", {"each": [{"seed": 0, "criterion": result["criterion"], **result["scores"]}]})["each"]
    names = ("seed", "criterion", *SCORES, "occupied")
    return {
        "prior": prior,
        "each": [{name: scores[name] for name in names} for scores in each],
        "seconds": result["wall_time_seconds"],
        "versions": result["versions"],
    }


def main() -> None:
    """Reads the arguments, trains, writes and prints."""
    parser = argparse.ArgumentParser("python -m benchmarks.prior")
    parser.add_argument("--data", required=True)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--largest", type=int, default=200)
    parser.add_argument("--ratio", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--output", default="docs/prior")
    arguments = parser.parse_args()
    path = Path(arguments.output).with_suffix(".json")
    dataset = data.load("embeddings", path=arguments.data, split="train")
    rows, sizes = imbalanced(dataset, arguments.largest, arguments.ratio)
    found = {**(read_json(path) or {}), "sizes": sizes, "steps": arguments.steps}
    priors = {"uniform": "uniform", "true shares": ",".join(map(str, sizes)), "learnt": "learnt", "none": "none"}
    for name, prior in priors.items():
        found[name] = turtle_row(rows, prior, len(sizes), arguments)
        write_json(path, found)
        print(line(name, found[name]), flush=True)
    found["k-means"] = kmeans_row(rows, len(sizes), arguments.seeds)
    write_json(path, found)
    print(line("k-means", found["k-means"]), flush=True)


if __name__ == "__main__":
    cli.use_huge_pages()
    main()
