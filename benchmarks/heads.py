"""TURTLE, TEMI and k-means on frozen features: scores of all seeds, and of the seed that is kept without labels.

    python -m benchmarks.heads --data=FILE.npz [--methods=kmeans,turtle,temi --seeds=10 --num_clusters=10
        --steps=3000 --epochs=40 --batch_size=256 --heads=16 --temi_seeds=1 --output=docs/heads]

FILE holds `image`, `labels` and `train` (the rows for training; the other rows are scored). The last step is scored.
Labels are used only for scores. Each method is one row of OUTPUT.json, which a new run replaces.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cluster import KMeans

from clustering_jax import data, metrics, run
from clustering_jax.files import read_json, write_json
from clustering_jax.settings import temi, turtle

SCORES = ("acc", "nmi", "ari")
RUN = {"evaluate_every": 0, "checkpoint_every": 0}


def options(path: str, split: str) -> dict[str, str]:
    """The settings of one split of FILE."""
    return {"source": "embeddings", "path": path, "label_key": "labels", "train_key": "train", "split": split}


def kmeans_row(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs k-means with ten restarts for each seed. It is fitted to the training rows and scored on the other rows."""
    train, test = (data.load(**options(arguments.data, split)) for split in ("train", "test"))
    each = []
    for seed in range(arguments.seeds):
        model = KMeans(arguments.num_clusters, n_init=10, random_state=seed).fit(train.features["image"])
        values = metrics.scores(test.labels, model.predict(test.features["image"]))
        each.append({"seed": seed, **{name: values[name] for name in SCORES}})
    return {"each": each}


def trained_row(config: dict[str, Any]) -> dict[str, Any]:
    """The scores of every seed of one run, the seed that the run kept, and the seconds of the run."""
    with tempfile.TemporaryDirectory() as workdir:
        result = run.train(config, Path(workdir), reported=False)
    several = result.get("seeds", {"each": [{"seed": 0, "criterion": result["criterion"], **result["scores"]}]})
    names = ("seed", "criterion", *SCORES, "occupied")
    return {
        "each": [{name: scores[name] for name in names} for scores in several["each"]],
        "kept": {"seed": result["seed"], **{name: result["scores"][name] for name in SCORES}},
        "seconds": result["wall_time_seconds"],
        "versions": result["versions"],
        "model": config["model"],
        "epochs": config["epochs"],
        "batch_size": config["batch_size"],
        "optimizer": config["optimizer"],
    }


def config_of(method: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The config of one row."""
    splits = {"data": options(arguments.data, "train"), "scored": options(arguments.data, "test")}
    common = {"num_clusters": arguments.num_clusters, "run": RUN, **splits}
    if method == "turtle":
        return turtle(num_seeds=arguments.seeds, model={"num_steps": arguments.steps}, **common).to_dict()
    return temi(
        num_seeds=arguments.temi_seeds,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        model={"heads": arguments.heads},
        # The authors' rule.
        optimizer={"learning_rate": 1e-4 * arguments.batch_size / 256},
        **common,
    ).to_dict()


def line(name: str, row: dict[str, Any]) -> str:
    """Mean and standard deviation over the seeds, and the kept seed."""
    columns = {score: [run[score] for run in row["each"]] for score in SCORES}
    cells = "  ".join(f"{score.upper()} {np.mean(c):.3f} +- {np.std(c):.3f}" for score, c in columns.items())
    kept = f"; kept seed {row['kept']['seed']}: ACC {row['kept']['acc']:.3f}" if "kept" in row else ""
    seconds = f"; {row['seconds']:.0f} s" if "seconds" in row else ""
    return f"{name:8} {len(row['each']):2} seeds  {cells}{kept}{seconds}"


def main() -> None:
    """Reads the arguments, trains, writes and prints."""
    parser = argparse.ArgumentParser("python -m benchmarks.heads")
    parser.add_argument("--data", required=True)
    parser.add_argument("--methods", default="kmeans,turtle,temi")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--temi_seeds", type=int, default=1)
    parser.add_argument("--num_clusters", type=int, default=10)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--output", default="docs/heads")
    arguments = parser.parse_args()
    path = Path(arguments.output).with_suffix(".json")
    rows = read_json(path) or {}
    for method in arguments.methods.split(","):
        row = kmeans_row(arguments) if method == "kmeans" else trained_row(config_of(method, arguments))
        rows[method] = row
        write_json(path, rows)
        print(line(method, row))


if __name__ == "__main__":
    main()
