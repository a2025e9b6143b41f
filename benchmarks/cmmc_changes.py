"""What the settings of CMMC for few rows and unequal views bring, one after the other, on several sets.

    python -m benchmarks.cmmc_changes --data=DIR --sets=msrc_v1:7,landuse21:21 [--seeds=3 --output=docs/cmmc_changes]

DIR holds SET.npz with arrays `view0`, `view1`, ... and the labels `y`, which only score. The number after the colon is
the number of clusters. Each row of the table has one change more than the row before; the last one is the candidate
"CMMC, settled" of the recipe "auto". Columns are scaled to [0, 1]. All rows are trained and scored, at the last step.
Runs that are already in FILE.json are not made again.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.named_sets import sets_of
from clustering_jax import cli
from clustering_jax.data import load
from clustering_jax.files import read_json, write_json
from clustering_jax.methods.view_agreement import view_agreement
from clustering_jax.methods.views import view_names
from clustering_jax.report.assigned import read_assignments
from clustering_jax.run import train
from clustering_jax.settings import cmmc
from clustering_jax.settings.cmmc import SETTLED

# The keys of SETTLED that each change takes.
CHANGES = {
    "narrow network": ("hidden", "latent_dim", "feature_dim", "kmeans_restarts"),
    "+ least number of steps": ("minimum_steps",),
    "+ pseudo-labels matched once": ("match_once", "double_softmax"),
    "+ third stage until settled": ("matching_steps", "until_settled"),
    "+ weights of the views": ("view_weights",),
}


def models() -> dict[str, dict[str, Any]]:
    """The group `model` after each change."""
    found, model = {}, {}
    for name, keys in CHANGES.items():
        model = model | {key: SETTLED[key] for key in keys}
        found[name] = model
    return found


def run(path: Path, num_clusters: int, model: dict[str, Any], seed: int) -> dict[str, Any]:
    """Scores, occupied clusters, agreement of the views, and seconds of one run."""
    data = {"source": "multiview", "path": str(path), "label_key": "y", "scaling": "minmax"}
    common = {"num_clusters": num_clusters, "seed": seed, "data": data, "run": {"checkpoint_every": 0}}
    config, start = cmmc(**common, model=model).to_dict(), time.perf_counter()
    with tempfile.TemporaryDirectory() as workdir:
        scores = train(config, Path(workdir), quiet=True, reported=False)["scores"]
        seconds = time.perf_counter() - start
        labels = read_assignments(Path(workdir) / "assignments.csv", num_clusters).clusters
    features = load(**config["data"]).features
    agreement = view_agreement([features[view] for view in view_names(features)], labels, num_clusters)
    kept = {key: scores[key] for key in ("acc", "nmi", "occupied")}
    return {"seed": seed, **kept, "agreement": agreement, "seconds": seconds}


def main() -> None:
    """Reads the arguments, trains the missing runs, writes and prints."""
    parser = argparse.ArgumentParser("python -m benchmarks.cmmc_changes")
    parser.add_argument("--data", required=True)
    parser.add_argument("--sets", required=True)
    parser.add_argument("--output", default="docs/cmmc_changes")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    path = Path(arguments.output).with_suffix(".json")
    for name, file, k in sets_of(arguments):
        for title, model in models().items():
            for seed in range(arguments.seeds):
                stored = read_json(path) or {}
                runs = stored.setdefault(name, {}).setdefault(title, [])
                if seed not in [found["seed"] for found in runs]:
                    runs.append(run(file, k, model, seed))
                    write_json(path, stored)
            acc, occupied = (np.array([found[key] for found in runs]) for key in ("acc", "occupied"))
            shown = f"ACC {acc.mean():.3f} +- {acc.std():.3f}, {occupied.mean():.1f} of {k} clusters"
            print(f"{name:12} {title:28} {shown}", flush=True)


if __name__ == "__main__":
    cli.use_huge_pages()
    main()
