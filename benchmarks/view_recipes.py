"""The recipe "auto" for views beside k-means, on several sets: is it ever worse?

    python -m benchmarks.view_recipes --data=DIR --sets=msrc_v1:7,leaves100:100 [--seeds=3 --recipe=quick
        --output=docs/view_recipes]

DIR holds SET.npz with arrays `view0`, `view1`, ... and the labels `y`, which only score. The number after the colon is
the number of clusters. Each run of the recipe keeps one candidate without labels; k-means is the mean over five seeds
on min-max and on standardised views side by side. All rows are trained and scored. Seeds that are already in
FILE.json are not run again; remove a set from it to measure it anew.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.named_sets import sets_of
from clustering_jax import cli, recipe
from clustering_jax.files import read_json, write_json
from clustering_jax.settings import views

PLAIN = ("k-means, minmax", "k-means, standard")


def one(path: Path, num_clusters: int, seed: int, recipe_name: str) -> dict[str, Any]:
    """One run of the recipe: the candidates, the one kept, seconds, and the size of the workdir in MB."""
    config = views(num_clusters=num_clusters, seed=seed, recipe=recipe_name).to_dict()
    config["data"] |= {"path": str(path), "label_key": "y"}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as workdir:
        result = recipe.train(config, Path(workdir) / "run", quiet=True)
        size = sum(file.stat().st_size for file in Path(workdir).rglob("*") if file.is_file()) / 1e6
    rows = result["candidates"]
    return {
        "seed": seed,
        "recipe": recipe_name,
        "kept": result["kept"],
        "acc": result["scores"]["acc"],
        "seconds": time.perf_counter() - start,
        "megabytes": size,
        "correlation": float(spearmanr([r["agreement"] for r in rows], [r["acc"] for r in rows])[0]),
        "candidates": rows,
    }


def main() -> None:
    """Reads the arguments, trains, writes and prints."""
    parser = argparse.ArgumentParser("python -m benchmarks.view_recipes")
    parser.add_argument("--data", required=True)
    parser.add_argument("--sets", required=True)
    parser.add_argument("--output", default="docs/view_recipes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", default="auto")
    arguments = parser.parse_args()
    path = Path(arguments.output).with_suffix(".json")
    for name, file, k in sets_of(arguments):
        runs = (read_json(path) or {}).get(name, [])
        for seed in range(len(runs), arguments.seeds):
            runs.append(one(file, k, seed, arguments.recipe))
            write_json(path, {**(read_json(path) or {}), name: runs})
        acc = [row["acc"] for row in runs]
        plain = [
            np.mean([r["mean"]["acc"] for row in runs for r in row["candidates"] if r["name"] == p]) for p in PLAIN
        ]
        print(
            f"{name:14} ACC {np.mean(acc):.3f} +- {np.std(acc):.3f}; "
            + ", ".join(f"{p} {value:.3f}" for p, value in zip(PLAIN, plain, strict=True))
            + f"; kept {', '.join(row['kept'] for row in runs)}",
            flush=True,
        )


if __name__ == "__main__":
    cli.use_huge_pages()
    main()
