"""BDCL (IJCNN 2025) and SCMVC (TMM 2024) on multi-view data sets, mean and standard deviation over seeds.

    python -m benchmarks.views_later --data=DIR [--sets=bdgp,ccv --methods=bdcl,scmvc --seeds=10 --epochs=N
        --output=docs/views_later]

DIR holds bdgp.npz, mnist_usps.npz, fashion_mv3.npz and ccv.npz with the keys view0, view1, ... and y. The settings are
those of the configs `cmmc_SET:bdcl` and `scmvc:SET`, except for the views and the scaling of pixels. All objects are
used for training and for scores, at the last step; labels are used only for scores. Seeds that are already in
FILE.json are not run again, so that you can split the work into several calls. `--epochs` shortens every stage to try
the program; these runs have their own rows.

The published rows of CCV use views of 5,000, 5,000 and 4,000 columns. They are no measure for a file of other features,
such as projections to 20 columns.
"""

from __future__ import annotations

import argparse
import runpy
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.multiview import balanced_baseline, one
from clustering_jax import cli
from clustering_jax.data import load
from clustering_jax.files import read_json, write_json
from clustering_jax.inference.results import kmeans_baseline
from clustering_jax.settings import config_files

# The file of each set, and its scaling if it is not the config's.
SETS = {
    "bdgp": ("bdgp", ""),
    "mnist_usps": ("mnist_usps", ""),
    "fashion": ("fashion_mv3", "pixels"),
    "ccv": ("ccv", ""),
}
METHODS = {"bdcl": "cmmc_{}:bdcl", "scmvc": "scmvc:{}"}
# ACC and NMI of the authors' best seed; SCMVC's epoch is chosen by the labels too.
PUBLISHED = {
    ("bdgp", "bdcl"): (0.9936, 0.9799),
    ("mnist_usps", "bdcl"): (0.9976, 0.9926),
    ("fashion", "bdcl"): (0.9939, 0.9838),
    ("ccv", "bdcl"): (0.3297, 0.3234),
    ("bdgp", "scmvc"): (0.992, 0.975),
    ("mnist_usps", "scmvc"): (0.997, 0.990),
    ("fashion", "scmvc"): (0.995, 0.986),
    ("ccv", "scmvc"): (0.400, 0.336),
}


def config_of(method: str, name: str, directory: str, seed: int = 0, epochs: int = 0) -> dict[str, Any]:
    """The resolved config of one run.

    Args:
      method: a key of `METHODS`.
      name: a key of `SETS`.
      directory: folder of the `.npz` files.
      seed: seed of the run.
      epochs: largest length of a stage; 0 is the config's.
    """
    file, _, variant = METHODS[method].format(name).partition(":")
    config = runpy.run_path(str(config_files.directory() / f"{file}.py"))["get_config"](variant).to_dict()
    path, scaling = SETS[name]
    config["data"] |= {"path": f"{directory}/{path}.npz", "views": (), "label_key": "y"}
    config["data"] |= {"scaling": scaling} if scaling else {}
    config["seed"], config["run"]["checkpoint_every"] = seed, 0
    return shortened(config, epochs) if epochs else config


def shortened(config: dict[str, Any], epochs: int) -> dict[str, Any]:
    """The config with at most so many epochs in each stage, and so many steps in CMMC's third stage."""
    lengths = {
        key: config["model"][key] for key in ("reconstruction_epochs", "matching_steps") if key in config["model"]
    }
    model = config["model"] | {key: min(length, epochs) for key, length in lengths.items()}
    return {**config, "epochs": min(config["epochs"], epochs), "model": model}


def trained(config: dict[str, Any]) -> dict[str, Any]:
    """Scores, criterion and seconds of one run."""
    return {key: value for key, value in one(config).items() if key != "clusters"}


def scores_of(runs: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over the seeds, and the best seed by ACC."""
    acc, nmi = (np.array([r[key] for r in runs]) for key in ("acc", "nmi"))
    best = int(acc.argmax())
    return (
        f"{len(runs):2} seeds  ACC {acc.mean():.4f} +- {acc.std():.4f}  NMI {nmi.mean():.4f} +- {nmi.std():.4f}  "
        f"best {acc[best]:.4f}/{nmi[best]:.4f} (seed {runs[best]['seed']})"
    )


def baselines_of(config: dict[str, Any]) -> dict[str, Any]:
    """k-means on the views side by side, and on views of variance 1."""
    dataset, k = load(**config["data"]), config["num_clusters"]
    return {"kmeans": kmeans_baseline(dataset, k), "kmeans_balanced": balanced_baseline(dataset, k)}


def main() -> None:
    """Reads the arguments, trains the missing runs, writes and prints."""
    parser = argparse.ArgumentParser("python -m benchmarks.views_later")
    parser.add_argument("--data", required=True)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--output", default="docs/views_later")
    arguments = parser.parse_args()
    path = Path(arguments.output).with_suffix(".json")
    stored = read_json(path) or {}
    for name in arguments.sets.split(","):
        entry = stored.setdefault(name, {})
        for method in arguments.methods.split(","):
            title = f"{method}, {arguments.epochs} epochs" if arguments.epochs else method
            runs = entry.setdefault(title, [])
            for seed in sorted(set(range(arguments.seeds)) - {r["seed"] for r in runs}):
                runs.append(trained(config_of(method, name, arguments.data, seed, arguments.epochs)))
                write_json(path, stored)
            acc, nmi = PUBLISHED[name, method]
            print(f"{name:11}{title:16}{scores_of(runs)}  published {acc}/{nmi}", flush=True)
        if "kmeans" not in entry:
            entry |= baselines_of(config_of("scmvc", name, arguments.data))
            write_json(path, stored)
        each = (f"{entry[key]['acc']:.4f}/{entry[key]['nmi']:.4f}" for key in ("kmeans", "kmeans_balanced"))
        print(f"{name:11}k-means, also on views of variance 1: {', '.join(each)}", flush=True)


if __name__ == "__main__":
    cli.use_huge_pages()
    main()
