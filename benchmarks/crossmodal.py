"""DMIM, its robust recipe, CMMC and k-means on paired modalities with ten seeds each: the tables in docs/results.md.

    python -m benchmarks.crossmodal --data=DIR [--sets=hard,easy --methods=dmim,robust --output=docs/crossmodal]

DIR holds wiki_img_text.npz, cub_img_text.npz and bdgp.npz with the keys view0, view1 and y. HARD and EASY are planted
(`data/planted`). All objects are used for training and for scores, at the last epoch; labels are used only for scores.
The tables show the mean and the standard deviation of ACC over seeds 0 to 9. "best loss of 5" is measured ten times:
the run with the smallest loss among five. CMMC multiplies in bfloat16 (`model.dtype`). Results that are already in
OUTPUT.json are not computed again.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cluster import KMeans

from clustering_jax import metrics, run, settings
from clustering_jax.data import load
from clustering_jax.data.planted import EASY
from clustering_jax.files import read_json, write_json

SEEDS, RESTARTS = 10, 5
# For each set: the number of clusters, and the settings that replace the source and the path. The first modality
# predicts.
SETS: dict[str, tuple[int, dict[str, Any]]] = {
    "hard": (8, {}),
    "easy": (8, EASY),
    "wiki": (10, {"path": "wiki_img_text.npz", "views": ("view1", "view0")}),
    "cub": (10, {"path": "cub_img_text.npz"}),
    "bdgp": (5, {"path": "bdgp.npz", "views": ("view1", "view0")}),
}
# Variants of the published recipe on HARD, by method: titles and the keys of `model` that change.
VARIATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "ablations": {
        "no over-clustering": {"over_weight": 0.0},
        "no L2": {"superfluous_weight": 0.0},
        "no L3": {"balance_weight": 0.0},
    },
    "parts": {
        "labels of the mean": {"balanced": "mean"},
        "and plain entropy": {"balanced": "mean", "double_softmax": False},
    },
    "heads": {
        "heads of .02": {"head_std": 0.02},
        "robust, of .02": {"balanced": "mean", "double_softmax": False, "balance_weight": 0.1, "head_std": 0.02},
    },
}


def data_of(name: str, directory: str, common: bool) -> dict[str, Any]:
    """The data group of a config. `common` scales all modalities to one width, as DMIM needs."""
    _, options = SETS[name]
    if "path" not in options:
        return {"source": "planted", **options}
    source = "multiview_pca" if common else "multiview"
    views = options.get("views", ())
    scaling = "none" if common else "minmax"
    path = f"{directory}/{options['path']}"
    return {"source": source, "path": path, "views": views, "label_key": "y", "scaling": scaling}


def trained(make: Callable, name: str, directory: str, seeds: int, **changes: Any) -> list[dict[str, float]]:
    """ACC, NMI, occupied clusters and criterion of each seed. The seeds are trained side by side."""
    common = make is not settings.cmmc
    options = {"num_clusters": SETS[name][0], "data": data_of(name, directory, common), "num_seeds": seeds, **changes}
    config = make(**options).to_dict()
    config["run"] |= {"evaluate_every": 0, "checkpoint_every": 0}
    with tempfile.TemporaryDirectory() as workdir:
        result = run.train(config, Path(workdir))
    keys = ("seed", "acc", "nmi", "occupied", "criterion")
    return [{key: row[key] for key in keys} for row in result["seeds"]["each"]]


def dmim(name: str, directory: str, seeds: int = SEEDS * RESTARTS, **model: Any) -> list[dict[str, float]]:
    """The published recipe."""
    epochs = 300 if "path" not in SETS[name][1] else 500
    return trained(settings.dmim, name, directory, seeds, epochs=epochs, batch_size=0, model=model)


def robust(name: str, directory: str) -> list[dict[str, float]]:
    """The recipe of configs/dmim_robust_planted.py."""
    make = importlib.import_module("configs.dmim_robust_planted").get_config
    return trained(lambda **changes: _updated(make(), changes), name, directory, SEEDS)


def _updated(config: Any, changes: dict[str, Any]) -> Any:
    """Replaces whole groups of `config`, also with values of another type."""
    return type(config)({**config.to_dict(), **changes})


def kmeans(name: str, directory: str) -> dict[str, list[dict[str, float]]]:
    """scikit-learn's k-means with 10 restarts, on each modality and on both."""
    dataset = load(**data_of(name, directory, common=True))
    first, second = dataset.features["view0"], dataset.features["view1"]
    rows_of = {}
    for what, rows in {"first": first, "second": second, "both": np.concatenate([first, second], 1)}.items():
        labels = [KMeans(SETS[name][0], n_init=10, random_state=seed).fit_predict(rows) for seed in range(SEEDS)]
        rows_of[f"k-means, {what}"] = [metrics.scores(dataset.labels, clusters) for clusters in labels]
    return rows_of


def measure(method: str, name: str, directory: str) -> dict[str, list[dict[str, float]]]:
    """Computes the rows of a table by their titles."""
    if method == "kmeans":
        return kmeans(name, directory)
    if method == "cmmc":
        return {"CMMC": trained(settings.cmmc, name, directory, SEEDS, model={"dtype": "bfloat16"})}
    if method in VARIATIONS:
        return {f"DMIM, {what}": dmim(name, directory, SEEDS, **change) for what, change in VARIATIONS[method].items()}
    if method == "robust":
        return {"robust recipe": robust(name, directory)}
    runs = dmim(name, directory)
    best = [min(runs[i * RESTARTS : (i + 1) * RESTARTS], key=lambda r: r["criterion"]) for i in range(SEEDS)]
    return {"DMIM": runs[:SEEDS], f"DMIM, best loss of {RESTARTS}": best}


def main() -> None:
    """Reads the arguments, runs the missing parts, writes and prints."""
    parser = argparse.ArgumentParser("python -m benchmarks.crossmodal")
    parser.add_argument("--data", required=True)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--methods", default=f"kmeans,dmim,robust,cmmc,{','.join(VARIATIONS)}")
    parser.add_argument("--output", default="docs/crossmodal")
    arguments = parser.parse_args()
    path = Path(arguments.output).with_suffix(".json")
    results = read_json(path) or {}
    for name in arguments.sets.split(","):
        for method in arguments.methods.split(","):
            if (method in VARIATIONS and name != "hard") or f"{name} {method}" in results:
                continue
            results[f"{name} {method}"] = measure(method, name, arguments.data)
            write_json(path, results)
            for title, rows in results[f"{name} {method}"].items():
                acc = np.array([row["acc"] for row in rows])
                print(f"{name:6}{title:25}ACC {acc.mean():.3f} +- {acc.std():.3f}  least {acc.min():.3f}", flush=True)


if __name__ == "__main__":
    main()
