"""CMMC, SCMVC, the recipe "quick" and k-means with missing views: ACC by the share of missing entries, over seeds.

    python -m benchmarks.missing_views --data=DIR [--sets=bdgp,msrc_v1 --rates=0.1,0.3 --seeds=3 --epochs=N
        --output=docs/missing_views]

DIR holds bdgp.npz, msrc_v1.npz and fashion_mv3.npz with the keys view0, view1, ... and y. An entry is one view of one
row. Exactly the given share of all entries is missing, and each row keeps at least one view. So of V views a share
above 1 - 1/V can't be missing, and such a rate is left out. The seed of a run draws the entries too, and they are the
same for all methods. Views are scaled by the rows that have them. CMMC and SCMVC count only the views that a row has;
"settled" is CMMC with the settings of the recipe "auto" for few rows. "quick" is that recipe without networks, and
k-means takes the mean of a view for a missing one. All rows are trained and scored, at the last step; labels are used
only for scores.

Runs that are already in FILE.json are not made again. `--epochs` shortens every stage to try the program; these runs
have their own rows.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from sklearn.cluster import KMeans

from benchmarks.views_later import shortened, trained
from clustering_jax import cli, metrics, recipe
from clustering_jax.data import load
from clustering_jax.files import read_json, write_json
from clustering_jax.methods.views import view_names
from clustering_jax.settings import cmmc, scmvc, views
from clustering_jax.settings.cmmc import SETTLED

# Clusters, contrastive epochs, scaling.
SETS = {"bdgp": (5, 10, "none"), "msrc_v1": (7, 50, "minmax"), "fashion_mv3": (10, 100, "pixels")}


def mask_of(n: int, views: int, rate: float, seed: int) -> np.ndarray:
    """Draws which rows have which view.

    Args:
      n: number of rows.
      views: number of views.
      rate: share of missing entries, at most 1 - 1/views.
      seed: seed of the draw.

    Returns:
      bool [n, views] with round(rate * n * views) entries False and at least one True in each row.
    """
    rng, mask = np.random.default_rng(seed), np.ones((n, views), bool)
    kept = rng.integers(views, size=n)
    others = np.flatnonzero(np.arange(views) != kept[:, None])
    mask.flat[rng.permutation(others)[: round(rate * n * views)]] = False
    return mask


def config_of(method: Callable, name: str, path: Path, seed: int, epochs: int) -> dict[str, Any]:
    """The resolved config of a run on a file with a mask."""
    clusters, length, scaling = SETS[name]
    data = {"source": "multiview", "path": str(path), "label_key": "y", "mask_key": "mask", "scaling": scaling}
    run = {"checkpoint_every": 0}
    config = method(seed=seed, num_clusters=clusters, epochs=length, data=data, run=run).to_dict()
    return shortened(config, epochs) if epochs else config


def settled(**changes: Any) -> ConfigDict:
    """CMMC with the settings for few rows."""
    return cmmc(**changes, model=SETTLED)


def quick(**changes: Any) -> ConfigDict:
    """The recipe without networks."""
    return views(**changes, recipe="quick")


def kept(config: dict[str, Any]) -> dict[str, Any]:
    """Scores of the candidate that the recipe keeps, and its name."""
    with tempfile.TemporaryDirectory() as workdir:
        result = recipe.train(config, Path(workdir), quiet=True, reported=False)
    return {"seed": config["seed"], "kept": result["kept"], **result["scores"]}


def imputed(config: dict[str, Any]) -> dict[str, Any]:
    """Scores of k-means on views of variance 1, side by side, with the mean of a view for a missing one."""
    dataset, parts = load(**config["data"]), []
    for name, present in zip(view_names(dataset.features), dataset.features["mask"].T[..., None], strict=True):
        x = dataset.features[name].astype(np.float32)
        x = np.where(present, x - x.mean(0, where=present), 0)
        parts.append(x / max(np.linalg.norm(x), 1e-12))
    clusters = KMeans(config["num_clusters"], n_init=10, random_state=config["seed"]).fit_predict(np.hstack(parts))
    return {"seed": config["seed"], **metrics.scores(dataset.labels, clusters)}


METHODS: dict[str, tuple[Callable, Callable]] = {
    "cmmc": (cmmc, trained),
    "settled": (settled, trained),
    "scmvc": (scmvc, trained),
    "quick": (quick, kept),
    "kmeans": (cmmc, imputed),
}


def measure(name: str, method: str, rate: float, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run of one method on one draw of missing entries."""
    settings, score = METHODS[method]
    with np.load(Path(arguments.data) / f"{name}.npz") as file:
        arrays = dict(file)
    mask = mask_of(len(arrays["y"]), number_of_views(arguments.data, name), rate, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.npz"
        np.savez(path, **arrays, mask=mask)
        return score(config_of(settings, name, path, seed, arguments.epochs))


def number_of_views(data: str, name: str) -> int:
    """The number of views in the file of a set."""
    with np.load(Path(data) / f"{name}.npz") as file:
        return sum(key.startswith("view") for key in file.files)


def main() -> None:
    """Reads the arguments, makes the runs that are absent, writes and prints."""
    parser = argparse.ArgumentParser("python -m benchmarks.missing_views")
    parser.add_argument("--data", required=True)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--rates", default="0.1,0.3,0.5,0.7")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--output", default="docs/missing_views")
    arguments = parser.parse_args()
    path = Path(arguments.output).with_suffix(".json")
    stored = read_json(path) or {}
    for name in arguments.sets.split(","):
        most = 1 - 1 / number_of_views(arguments.data, name)
        for rate in map(float, arguments.rates.split(",")):
            if rate > most:
                print(f"{name:12}{rate:4.0%}: left out, a row keeps a view and at most {most:.0%} can be missing")
                continue
            entry = stored.setdefault(name, {}).setdefault(f"{rate:g}", {})
            for method in arguments.methods.split(","):
                shorter = arguments.epochs and method not in ("kmeans", "quick")
                runs = entry.setdefault(f"{method}, {arguments.epochs} epochs" if shorter else method, [])
                for seed in sorted(set(range(arguments.seeds)) - {r["seed"] for r in runs}):
                    runs.append(measure(name, method, rate, seed, arguments))
                    write_json(path, stored)
                acc = np.array([r["acc"] for r in runs])
                print(
                    f"{name:12}{rate:4.0%} {method:8}{len(acc)} seeds  ACC {acc.mean():.4f} +- {acc.std():.4f}",
                    flush=True,
                )


if __name__ == "__main__":
    cli.use_huge_pages()
    main()
