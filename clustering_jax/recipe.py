"""The recipe "auto" for views: trains several candidates, k-means among them, and keeps one without labels.

Each candidate is a run of its own below ``WORKDIR/candidates``. The one whose clusters the views predict best
(`clustering_jax.methods.view_agreement`) becomes the run of the workdir; the others are deleted. The same command again
goes on where it was stopped.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from threadpoolctl import threadpool_limits

from clustering_jax import report, run, settings
from clustering_jax.data.base import Dataset
from clustering_jax.errors import ResultWarning, UserError
from clustering_jax.files import read_json
from clustering_jax.inference import describe, results
from clustering_jax.inference.predictor import Predictor
from clustering_jax.methods.view_agreement import ViewFolds, agreement, view_folds
from clustering_jax.methods.views import view_names
from clustering_jax.report.assigned import read_assignments
from clustering_jax.settings.cmmc import SETTLED
from clustering_jax.training.lock import NAME, locked
from clustering_jax.training.signals import Signals
from clustering_jax.training.workdir import (
    ASSIGNMENTS,
    check_workdir,
    create_workdir,
    differences,
    finished,
    write_result,
)

RECIPES = ("auto", "quick", "published")
# The methods of the candidates besides the method of the config; the first have no network.
SIMPLE = ("kmeans", "spectral", "turtle")
METHODS = (*SIMPLE, "cmmc")
# Up to this number of rows, networks do no better than the other candidates, and take longest.
FEW_ROWS = 2000
# Above it, spectral clustering takes too long: it compares all pairs of rows.
MANY_ROWS = 15_000
KMEANS_SEEDS, TURTLE_STEPS = 5, 500
SCALINGS = ("minmax", "standard")
PLAIN = tuple(f"k-means, {scaling}" for scaling in SCALINGS)
# A lead over plain k-means that is smaller than this, or than the deviation of k-means over its seeds, is no lead.
LEAD = 0.01
# A network that is trained to make the views agree gains agreement more easily than accuracy, so it has to lead the
# other candidates by this much.
NETWORK_LEAD = 0.05
# Settings that all candidates have in common with the config, and those that only its own method uses.
COMMON = ("num_clusters", "seed", "reject", "balanced", "levels", "rows")
OWN = ("model", "optimizer", "epochs", "num_seeds", "init_from")


def train(
    config: dict[str, Any],
    workdir: Path,
    signals: Signals | None = None,
    streams: Mapping[str, Dataset] | None = None,
    load: Callable[[dict[str, Any]], Mapping[str, Dataset]] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Trains by the recipe of the config.

    Args:
      config: the config of the run as a plain dictionary.
      workdir: directory of the run.
      signals: see `run.train`.
      streams: see `run.train`.
      load: returns the data sets of a candidate's config, which may scale views in another way; None loads what the
        config names.
      **options: `quiet` and `reported` of `run.train`.

    Returns:
      The content of result.json. For "auto" and "quick" it also holds the name of the candidate that was kept, under
      "kept", and under "candidates" the name, method, "agreement", "agreement_std" and scores of each, and "mean"
      over its seeds if it has several. "verdict" is a sentence where k-means does as well, else "". The wall
      time is of the training of all candidates.

    Raises:
      UserError: an unknown recipe, data other than views, several processes, or as `run.train`.
      Interrupted: as `run.train`.
    """
    recipe = config.get("recipe", "published")
    if recipe not in RECIPES:
        raise UserError(f"recipe is '{recipe}': choose {', '.join(RECIPES[:-1])} or {RECIPES[-1]}")
    if recipe == "published" or finished(workdir):
        return run.train(config, workdir, signals, streams=streams, **options)
    if jax.process_count() > 1:
        raise UserError(f"recipe '{recipe}' needs one process: set --config.recipe=published")
    streams = streams or run.load_streams(config)
    # Threads of small matrix products wait for each other longer than they work.
    threads = 1 if streams["train"].num_examples <= FEW_ROWS else None
    with locked(workdir, "--workdir"), threadpool_limits(threads):
        return _auto(config, workdir, signals, streams, load, **options)


def candidates(config: Mapping[str, Any], num_rows: int, num_views: int) -> dict[str, dict[str, Any]]:
    """The configs of the candidates by name.

    Args:
      config: the config of the run, with a number of clusters.
      num_rows: number of objects.
      num_views: number of views.
    """
    common = {name: config[name] for name in COMMON} | {"run": {"evaluate_every": 0}}

    def of(method: Callable, scaling: str, **changes: Any) -> dict[str, Any]:
        data = {**config["data"], "scaling": scaling} if "scaling" in config["data"] else config["data"]
        return method(**common, data=data, **changes).to_dict()

    several = {"num_seeds": KMEANS_SEEDS}
    found = {f"k-means, {scaling}": of(settings.kmeans, scaling, **several) for scaling in SCALINGS}
    for scaling in SCALINGS if num_views > 1 else ():
        equal = of(settings.kmeans, scaling, **several, model={"equal_views": True})
        found[f"k-means, {scaling}, equal views"] = equal
    for view in range(num_views if num_views > 1 else 0):
        found[f"k-means, view {view} alone"] = of(settings.kmeans, "standard", model={"view": view})
    found["TURTLE"] = of(settings.turtle, "standard", model={"num_steps": TURTLE_STEPS})
    for scaling in SCALINGS if num_rows <= MANY_ROWS else ():
        found[f"spectral, {scaling}"] = of(settings.spectral, scaling)
    if config["recipe"] == "auto" and num_rows > FEW_ROWS:
        if num_views > 1:
            found["CMMC, settled"] = of(settings.cmmc, "minmax", model=SETTLED)
        found[config["method"].upper()] = {**config, "recipe": "published", "kmeans_baseline": False}
    return found


def _auto(
    config: dict[str, Any],
    workdir: Path,
    signals: Signals | None,
    streams: Mapping[str, Dataset],
    load: Callable[[dict[str, Any]], Mapping[str, Dataset]] | None,
    *,
    quiet: bool = False,
    reported: bool = True,
) -> dict[str, Any]:
    check_workdir(workdir, config)
    dataset = streams["train"]
    names = view_names(dataset.features)
    if not names:
        raise UserError(f"recipe '{config['recipe']}' is for views: set --config.recipe=published")
    chosen = run.chosen_clusters(config, dataset, workdir, quiet)
    configs = candidates({**config, "num_clusters": chosen["num_clusters"]}, dataset.num_examples, len(names))
    warn_of_unused(config, configs)
    create_workdir(workdir, config)
    folds = view_folds([dataset.features[name] for name in names], dataset.features.get("mask"))
    rows, seconds = _trained(configs, workdir / "candidates", folds, signals, load, quiet)
    best = kept(rows)
    more = {"candidates": rows, "kept": rows[best]["name"], "verdict": verdict(rows, best)}
    result = _keep(workdir, best, {**more, "wall_time_seconds": seconds}, config)
    if result["scores"]["occupied"] < chosen["num_clusters"]:
        results.warn_of_empty_clusters(chosen["num_clusters"])
    if "rejection" in result:
        describe.warn_of_rejection(result["rejection"], dataset.num_examples)
    if not quiet:
        print(table(rows, best), results.table(result), sep="\n")
    if reported:
        report.write(workdir)
    return result


def _trained(
    configs: Mapping[str, Mapping[str, Any]],
    workdir: Path,
    folds: Sequence[ViewFolds],
    signals: Signals | None,
    load: Callable | None,
    quiet: bool,
) -> tuple[list[dict[str, Any]], float]:
    """Trains the candidates. Returns what result.json keeps of each, and the seconds of all trainings."""
    rows, seconds = [], 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultWarning)
        for number, (name, config) in enumerate(configs.items()):
            directory, own = workdir / str(number), load(config) if load else None
            result = run.train(dict(config), directory, signals, streams=own, quiet=True, reported=False)
            rows.append(_row(name, result, *_agreement(folds, directory, config, result, own)))
            seconds += result["wall_time_seconds"]
            if not quiet:
                print(f"{name}: agreement {rows[-1]['agreement']:.3f}, {result['wall_time_seconds']:.0f} s", flush=True)
    return rows, seconds


def kept(rows: Sequence[Mapping[str, Any]]) -> int:
    """The number of the candidate to keep: plain k-means, unless the lead of another one is clear.

    Args:
      rows: "name", "method", "agreement" and "agreement_std" of each candidate, at least one of which is plain k-means.
    """
    values = [row["agreement"] for row in rows]
    network = np.array([row["method"] not in SIMPLE for row in rows])
    first = max((i for i, row in enumerate(rows) if row["name"] in PLAIN), key=values.__getitem__)
    best = int(np.argmax(np.where(network, -np.inf, values)))
    if values[best] <= values[first] + max(LEAD, rows[first]["agreement_std"]):
        best = first
    last = int(np.argmax(np.where(network, values, -np.inf)))
    return last if network[last] and values[last] > values[best] + NETWORK_LEAD else best


def _row(name: str, result: Mapping[str, Any], value: float, spread: float) -> dict[str, Any]:
    """What result.json keeps of a candidate."""
    shown = {key: score for key, score in result["scores"].items() if key in (*results.TABLE, "occupied")}
    several = {"mean": result["seeds"]["mean"]} if "seeds" in result else {}
    return {"name": name, "method": result["method"], "agreement": value, "agreement_std": spread, **shown, **several}


def warn_of_unused(config: Mapping[str, Any], configs: Mapping[str, Any]) -> None:
    """Warns of settings for the method of the config, if that method is not among the candidates.

    Args:
      config: the config of the run.
      configs: the candidates by name.
    """
    method = config["method"]
    if method.upper() in configs:
        return
    defaults = {"method": ""}
    if hasattr(settings, method):
        defaults = {name: value for name, value in getattr(settings, method)().to_dict().items() if name in OWN}
    changed = differences(defaults, {name: config[name] for name in defaults})
    if changed:
        warnings.warn(
            f"recipe '{config['recipe']}' trains no {method.upper()} here, so {', '.join(changed)} change nothing: "
            f"set recipe=published to train {method.upper()}",
            stacklevel=2,
        )


def _agreement(
    folds: Sequence[ViewFolds],
    directory: Path,
    config: Mapping[str, Any],
    result: Mapping[str, Any],
    streams: Mapping[str, Dataset] | None,
) -> tuple[float, float]:
    """The agreement of a candidate, and 0; of k-means with several seeds, their mean and standard deviation.

    The clusters are the most probable ones, before rows are rejected or sizes are balanced.
    """
    if "seeds" in result and result["method"] == "kmeans":
        values = [-seed["criterion"] for seed in result["seeds"]["each"]]
        return float(np.mean(values)), float(np.std(values))
    k = config["num_clusters"]
    if config["reject"] or config["balanced"]:
        features = (streams or run.load_streams(config))["train"].features
        labels = Predictor.restore(directory).model_proba(dict(features)).argmax(1)
        return agreement(folds, labels, k), 0.0
    assigned = read_assignments(directory / ASSIGNMENTS, k)
    if assigned is None:
        raise UserError(f"{directory} lacks {ASSIGNMENTS}: remove this directory, and run the same command again")
    return agreement(folds, assigned.clusters, k), 0.0


def _keep(workdir: Path, best: int, more: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Makes a candidate the run of the workdir. result.json comes last: without it, the command does this again."""
    kept = workdir / "candidates" / str(best)
    for path in kept.iterdir():
        if path.is_dir():
            shutil.copytree(path, workdir / path.name, dirs_exist_ok=True)
        elif path.name not in ("config.json", "result.json", NAME):
            shutil.copyfile(path, workdir / path.name)
    result = {**(read_json(kept / "result.json") or {}), **more}
    result = write_result(workdir, result, config["data"].get("path"))
    shutil.rmtree(workdir / "candidates")
    return result


def verdict(rows: Sequence[Mapping[str, Any]], best: int) -> str:
    """A sentence if plain k-means was kept; "" if not."""
    return "k-means does as well as the other methods here" if rows[best]["name"] in PLAIN else ""


def table(rows: Sequence[Mapping[str, Any]], best: int) -> str:
    """Formats the candidates, and says in a sentence where k-means does as well."""
    scored = [name for name in results.TABLE if name in rows[0]]
    width = max(len(row["name"]) for row in rows) + 1
    names = "".join(f"{name.upper():>8}" for name in scored)
    lines = [f"{'candidate':{width}}{'agreement':>10}{'occupied':>10}{names}"]
    for i, row in enumerate(rows):
        values = "".join(f"{row[name]:8.3f}" for name in scored)
        values += " kept" * (i == best)
        lines.append(f"{row['name']:{width}}{row['agreement']:10.3f}{row['occupied']:10}{values}")
    return "\n".join([*lines, *filter(None, [verdict(rows, best)])])
