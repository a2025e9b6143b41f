"""DXMC and TAC on embeddings of images and nouns, mean and standard deviation over seeds: the table in docs/results.md.

    python -m benchmarks.semantic --data=FILE.npz [--seeds=10 --centers=30 --num_clusters=10 --output=docs/semantic]

FILE holds `image`, `labels`, `train` (the rows for training; the others are scored), `nouns` and `noun_words`. Scores
are taken at the last step; labels are used only for scores. Seeds that are already in OUTPUT.json are not run again.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from clustering_jax import run
from clustering_jax.files import read_json, write_json
from clustering_jax.settings import dxmc

# The settings that each row of the table changes.
ROWS = {"DXMC": {}, "TAC": {"consistent": True}}
# One semantic space for all seeds, as in the authors' code, which stores it in files; or one space for each seed.
SPACES = {"": 0, ", spaces drawn anew": -1}


def one(path: str, seed: int, num_clusters: int, model: dict[str, Any]) -> dict[str, Any]:
    """Scores of one run and of its baselines, by name."""
    data = {"source": "embeddings", "path": path, "label_key": "labels", "train_key": "train"}
    config = dxmc(
        seed=seed,
        num_clusters=num_clusters,
        data={**data, "split": "train"},
        scored={**data, "split": "test"},
        model=model,
        run={"evaluate_every": 0, "checkpoint_every": 0},
    )
    with tempfile.TemporaryDirectory() as workdir:
        result = run.train(config.to_dict(), Path(workdir))
    return {
        "seed": seed,
        **{key: result["scores"][key] for key in ("acc", "nmi", "ari", "occupied")},
        "baselines": {b["name"]: {key: b[key] for key in ("acc", "nmi", "ari")} for b in result["baselines"]},
        "names": result["names"],
        "seconds": result["wall_time_seconds"],
    }


def line(name: str, runs: list[dict[str, Any]]) -> str:
    """Formats a row: mean and standard deviation, and the number of runs with an empty cluster."""
    scores = [
        f"{np.mean([r[k] for r in runs]):.3f} +- {np.std([r[k] for r in runs]):.3f}" for k in ("acc", "nmi", "ari")
    ]
    return f"{name:28} {len(runs):2} seeds  ACC {scores[0]}  NMI {scores[1]}  ARI {scores[2]}"


def main() -> None:
    """Reads the arguments, trains the missing runs, writes and prints."""
    parser = argparse.ArgumentParser("python -m benchmarks.semantic")
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--centers", type=int, default=30)
    parser.add_argument("--num_clusters", type=int, default=10)
    parser.add_argument("--output", default="docs/semantic")
    arguments = parser.parse_args()
    path = Path(arguments.output).with_suffix(".json")
    stored = read_json(path) or {}
    for (name, model), (suffix, space) in product(ROWS.items(), SPACES.items()):
        name, model = name + suffix, {"space_seed": space, **model}
        runs = stored.setdefault(name, [])
        for seed in range(arguments.seeds):
            if seed not in [r["seed"] for r in runs]:
                runs.append(one(arguments.data, seed, arguments.num_clusters, {"centers": arguments.centers, **model}))
                write_json(path, stored)
        collapsed = sum(r["occupied"] < arguments.num_clusters for r in runs)
        print(f"{line(name, runs)}  collapsed {collapsed} of {len(runs)}")
    for name in stored["DXMC"][0]["baselines"]:
        print(line(name, [r["baselines"][name] for r in stored["DXMC"]]))
    print(*(f"cluster {i}: {', '.join(words)}" for i, words in enumerate(stored["DXMC"][0]["names"])), sep="\n")


if __name__ == "__main__":
    main()
