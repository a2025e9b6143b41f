"""CMMC on multi-view data sets, mean and standard deviation over seeds: the table in docs/results.md.

    python -m benchmarks.multiview --data=DIR [--sets=bdgp,handwritten --dtype=bfloat16 --seeds=10 --output=FILE]

DIR holds bdgp.npz, mnist_usps.npz, fashion_mv3.npz and handwritten.npz with the keys view0, view1, ... and y. All
objects are used for training and for scores, at the last step; labels are used only for scores. `--dtype` is
`model.dtype`; each dtype has its own rows. Seeds that are already in FILE.json (docs/multiview.json) are not run again,
so that you can split the work into several calls. For a changed setting use another FILE.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from clustering_jax import metrics, run
from clustering_jax.data import load
from clustering_jax.data.base import Dataset
from clustering_jax.files import read_json, write_json
from clustering_jax.inference.results import kmeans_baseline
from clustering_jax.methods.cmmc.pseudo_labels import joint_pseudo_labels
from clustering_jax.methods.views import view_names
from clustering_jax.settings import cmmc
from clustering_jax.training.seeds import disagreement

# File, clusters, contrastive epochs, scaling, source of the pseudo-labels, double softmax, smallest allowed mean ACC.
SETS = {
    "bdgp": ("bdgp", 5, 10, "none", "features", True, 0.985),
    "mnist_usps": ("mnist_usps", 10, 50, "none", "features", True, 0.990),
    "fashion": ("fashion_mv3", 10, 100, "pixels", "features", True, 0.98),
    "fashion_held_out": ("fashion_mv3", 10, 100, "pixels", "held_out", False, 0.98),
    "handwritten": ("handwritten", 10, 50, "minmax", "features", True, 0.93),
    "handwritten_joint": ("handwritten", 10, 50, "minmax", "views", True, 0.93),
    "handwritten_joint_paper": ("handwritten", 10, 50, "minmax", "views", False, 0.93),
}


def config_of(name: str, directory: str, seed: int, dtype: str) -> dict[str, Any]:
    """The resolved config of one run."""
    file, clusters, epochs, scaling, source, double_softmax, _ = SETS[name]
    data = {"source": "multiview", "path": f"{directory}/{file}.npz", "label_key": "y", "scaling": scaling}
    model = {"pseudo_labels_of": source, "dtype": dtype, "double_softmax": double_softmax}
    settings = {"data": data, "model": model, "run": {"checkpoint_every": 0}}
    return cmmc(seed=seed, num_clusters=clusters, epochs=epochs, **settings).to_dict()


def one(config: dict[str, Any]) -> dict[str, Any]:
    """Scores, criterion, seconds and clusters of one seed. The clusters are stored as one character per object."""
    with tempfile.TemporaryDirectory() as workdir:
        result = run.train(config, Path(workdir))
        with open(Path(workdir) / "assignments.csv", newline="") as file:
            clusters = [np.base_repr(int(row["cluster"]), 36) for row in csv.DictReader(file)]
    scores = {key: result["scores"][key] for key in ("acc", "nmi", "ari", "occupied")}
    facts = {"criterion": result["criterion"], "seconds": result["wall_time_seconds"], "clusters": "".join(clusters)}
    return {"seed": config["seed"], **scores, **facts}


def balanced_baseline(dataset: Dataset, k: int) -> dict[str, float]:
    """k-means on the concatenated views, each scaled to variance 1: the pseudo-labels "views" without a network."""
    views = [dataset.features[name] for name in view_names(dataset.features)]
    mask = np.ones((dataset.num_examples, len(views)), bool)
    labels = joint_pseudo_labels(jax.random.key(0), views, mask, k, 10)["pseudo"][:, 0]
    return metrics.scores(dataset.labels, labels)


def kept(runs: list[dict[str, Any]]) -> str:
    """ACC of the run that one program with the same seeds would select without labels.

    It is unknown for runs that were measured before FILE.json held the clusters.
    """
    if not all("clusters" in r for r in runs):
        return ""
    values = disagreement([np.array(list(r["clusters"])) for r in runs], [r["criterion"] for r in runs])
    return f"kept without labels {runs[int(np.argmin(values))]['acc']:.4f}, "


def row(title: str, aim: float, runs: list[dict[str, Any]], *baselines: dict[str, float]) -> str:
    """Formats a row of the table."""
    acc, nmi = (np.array([r[key] for r in runs]) for key in ("acc", "nmi"))
    return (
        f"{title:19} {len(runs):2} seeds  ACC {acc.mean():.4f} +- {acc.std():.4f} (best {acc.max():.4f}, {kept(runs)}"
        f"aim {aim})  NMI {nmi.mean():.4f} +- {nmi.std():.4f}  "
        "k-means, also on views of variance 1: " + ", ".join(f"{b['acc']:.4f}/{b['nmi']:.4f}" for b in baselines)
    )


def main() -> None:
    """Reads the arguments, trains the missing runs, writes and prints."""
    parser = argparse.ArgumentParser("python -m benchmarks.multiview")
    parser.add_argument("--data", required=True)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--output", default="docs/multiview")
    arguments = parser.parse_args()
    path = Path(arguments.output).with_suffix(".json")
    stored = read_json(path) or {}
    for name in arguments.sets.split(","):
        title = name if arguments.dtype == "float32" else f"{name} {arguments.dtype}"
        entry = stored.setdefault(title, {"runs": []})
        for seed in range(arguments.seeds):
            config = config_of(name, arguments.data, seed, arguments.dtype)
            if seed not in [r["seed"] for r in entry["runs"]]:
                entry["runs"].append(one(config))
                write_json(path, stored)
        if "kmeans_balanced" not in entry:
            dataset = load(**config["data"])
            entry["kmeans"] = kmeans_baseline(dataset, SETS[name][1])
            entry["kmeans_balanced"] = balanced_baseline(dataset, SETS[name][1])
            write_json(path, stored)
        print(row(title, SETS[name][-1], entry["runs"], entry["kmeans"], entry["kmeans_balanced"]), flush=True)


if __name__ == "__main__":
    main()
