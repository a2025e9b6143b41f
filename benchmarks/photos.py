"""k-means, DXMC without nouns, TURTLE and TEMI on the same embeddings of photos by EfficientNet-Lite0.

    pip install -e '.[photos,tfds]'
    python -m benchmarks.photos --workdir=DIR [--folder=PHOTOS --tfds=DATA_DIR
        --methods=kmeans,dxmc,turtle,temi,choose_k --seeds=10 --steps=1000 --epochs=80 --temi_seeds=10
        --output=docs/photos]

There are two sets: PHOTOS, a folder of photos with one subfolder for each class; and the 10,000 test images of CIFAR-10
in DATA_DIR. All rows are used for training and for scores, at the last step. Labels are used only for scores. The
embeddings are kept in DIR. Each row of OUTPUT.json is one method on one set. A new run replaces it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cluster import KMeans

from benchmarks.heads import RUN, SCORES, line, trained_row
from clustering_jax import cli, data, metrics
from clustering_jax.choose_k import principal
from clustering_jax.data.base import Dataset
from clustering_jax.files import read_json, write_json
from clustering_jax.inference.embedding import embed
from clustering_jax.kmeans import number_of_clusters
from clustering_jax.parallel import device_per_core
from clustering_jax.settings import dxmc, temi, turtle


def sets(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The images of each set that the arguments name."""
    folder = {"source": "folder", "path": arguments.folder, "labels_from_folders": True}
    cifar = {"source": "tfds", "name": "cifar10", "splits": "test", "tfds_dir": arguments.tfds}
    given = {"folder": (arguments.folder, folder), "cifar10_test": (arguments.tfds, cifar)}
    return {name: images for name, (path, images) in given.items() if path}


def embedded(directory: Path, images: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Embeds a set unless an earlier call did, and returns the settings of the embeddings and the seconds."""
    start, exists = time.perf_counter(), (directory / "train.npy").is_file()
    embed(directory, encoder="lite0", splits={"train": images})
    seconds = 0.0 if exists else time.perf_counter() - start
    return {"source": "embeddings", "path": str(directory), "split": "train"}, seconds


def kmeans_row(rows: Dataset, num_clusters: int, seeds: int) -> dict[str, Any]:
    """Runs k-means with ten restarts for each seed."""
    start, each = time.perf_counter(), []
    for seed in range(seeds):
        labels = KMeans(num_clusters, n_init=10, random_state=seed).fit_predict(rows.features["image"])
        values = metrics.scores(rows.labels, labels)
        each.append({"seed": seed, **{name: values[name] for name in SCORES}})
    return {"each": each, "seconds": time.perf_counter() - start}


def config_of(method: str, options: dict[str, Any], num_clusters: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The config of a trained row."""
    common = {"num_clusters": num_clusters, "run": RUN, "data": options}
    if method == "turtle":
        return turtle(num_seeds=arguments.seeds, model={"num_steps": arguments.steps}, **common).to_dict()
    if method == "dxmc":
        return dxmc(num_seeds=arguments.seeds, model={"words": "images"}, **common).to_dict()
    return temi("quick", num_seeds=arguments.temi_seeds, epochs=arguments.epochs, **common).to_dict()


def chosen_row(rows: Dataset, num_clusters: int) -> dict[str, Any]:
    """The number of clusters that `choose_k` recommends among 2 to twice the true number."""
    start = time.perf_counter()
    ks = tuple(range(2, 2 * num_clusters + 1))
    points = principal(rows.features["image"], ks)
    choice = number_of_clusters.recommend(number_of_clusters.curves(points, ks, seed=0, samples=10), ks, seed=0)
    return {"true": num_clusters, **choice, "seconds": time.perf_counter() - start}


def main() -> None:
    """Reads the arguments, embeds, trains, writes and prints."""
    parser = argparse.ArgumentParser("python -m benchmarks.photos")
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--folder", default="")
    parser.add_argument("--tfds", default="")
    parser.add_argument("--methods", default="kmeans,dxmc,turtle,temi,choose_k")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--temi_seeds", type=int, default=10)
    parser.add_argument("--output", default="docs/photos")
    arguments = parser.parse_args()
    path = Path(arguments.output).with_suffix(".json")
    for name, images in sets(arguments).items():
        options, seconds = embedded(Path(arguments.workdir) / name, images)
        rows, results = data.load(**options), read_json(path) or {}
        results.setdefault(name, {"rows": rows.num_examples})
        if seconds:
            results[name]["embedding_seconds"] = seconds
        num_clusters = len(np.unique(rows.labels))
        for method in filter(None, arguments.methods.split(",")):
            if method == "choose_k":
                row = chosen_row(rows, num_clusters)
            elif method == "kmeans":
                row = kmeans_row(rows, num_clusters, arguments.seeds)
            else:
                row = trained_row(config_of(method, options, num_clusters, arguments))
            results[name][method] = row
            write_json(path, results)
            print(name, line(method, row) if "each" in row else row, flush=True)


if __name__ == "__main__":
    cli.use_huge_pages()
    device_per_core()
    main()
