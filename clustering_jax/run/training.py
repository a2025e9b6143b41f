"""One run, from a config to a finished workdir: builds the method, trains, assigns and scores."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from clustering_jax import data, report
from clustering_jax.data.base import Dataset
from clustering_jax.data.images.streaming import LazyArray
from clustering_jax.errors import UserError
from clustering_jax.files import write_json
from clustering_jax.inference import describe, results
from clustering_jax.inference.balanced import balanced, log_shares
from clustering_jax.inference.features import with_feature_scores
from clustering_jax.method import Method
from clustering_jax.methods import from_config
from clustering_jax.parallel import local
from clustering_jax.run.streams import (
    CHOSEN,
    check_scored,
    chosen_clusters,
    load_streams,
    shapes_of,
    show,
    warn_of_notes,
    with_embeddings,
)
from clustering_jax.training import seeds
from clustering_jax.training.batches import batch_size_of, is_resident
from clustering_jax.training.checkpoint import Store
from clustering_jax.training.evaluate import make_infer
from clustering_jax.training.lock import locked
from clustering_jax.training.log import MetricsLog
from clustering_jax.training.loop import Schedule, fit
from clustering_jax.training.signals import Signals
from clustering_jax.training.workdir import (
    changed_since,
    check_run,
    check_workdir,
    create_workdir,
    finished,
    write_result,
)


def train(
    config: dict[str, Any],
    workdir: Path,
    signals: Signals | None = None,
    *,
    streams: Mapping[str, Dataset] | None = None,
    quiet: bool = False,
    reported: bool = True,
) -> dict[str, Any]:
    """Trains a method and writes everything to a workdir. A run that was interrupted is resumed.

    Args:
      config: the config of the run as a plain dictionary.
      workdir: directory of the run.
      signals: handles SIGTERM and SIGINT, see `fit`.
      streams: data sets by stream name, which replace the data that `config` names.
      quiet: whether to print nothing.
      reported: whether to score the features and to write report.html at the end.

    Returns:
      The content of result.json.

    Raises:
      UserError: the config or the data can't be used, or the workdir holds a run of another config.
      Interrupted: a signal stopped the run after a checkpoint was saved.
      Diverged: the loss is not finite.
    """
    check_workdir(workdir, config)
    seeds.check_numbers(config)
    result = finished(workdir)
    if result:
        seconds = result["wall_time_seconds"]
        show(f"{workdir} is finished (wall time {seconds:.0f} s); a new run needs a new --workdir", quiet)
        if changed := "" if streams else changed_since(workdir, config, result):
            warnings.warn(
                f"{workdir} is finished, and its data have changed since: they differ in {changed}", stacklevel=2
            )
        if reported:
            report.if_missing(workdir, quiet=quiet)
        return result
    with locked(workdir, "--workdir"):
        return _run(config, workdir, signals, streams, quiet, reported)


def _run(
    config: dict[str, Any],
    workdir: Path,
    signals: Signals | None,
    streams: Mapping[str, Dataset] | None,
    quiet: bool,
    reported: bool,
) -> dict[str, Any]:
    """Trains in a workdir that no other process uses. The arguments are those of `train`."""
    check_workdir(workdir, config)  # which another process may have filled in between
    original, config = config, config if streams else with_embeddings(config, workdir)
    warn_of_notes(streams := dict(streams or load_streams(config)))
    scored = data.load(**config["scored"]) if config["scored"] else None
    check_scored(streams["train"], scored)
    if config["kmeans_baseline"] and isinstance((scored or streams["train"]).features.get("image"), LazyArray):
        raise UserError("kmeans_baseline needs all pixels in memory: set kmeans_baseline=False or streaming=False")
    chosen = chosen_clusters(config, streams["train"], workdir, quiet)
    settings = {**config, "num_clusters": chosen["num_clusters"]}
    settings["batch_size"] = batch_size_of(settings, streams)
    steps = {name: d.num_examples // settings["batch_size"] for name, d in streams.items()}
    describe.check(settings)
    method = from_config(settings, steps)
    # The preparation may take long, so that this check is done before it and after it.
    seeds.check(config, method, is_resident(streams, _resident_bytes(config)))
    described = check_run(workdir, settings, {**streams, **({"scored": scored} if scored else {})})
    variables = _initial(method, settings, streams["train"])
    if method.prepare:
        streams["train"] = method.prepare(seeds.keys_of((config["seed"],)), streams["train"], workdir / "prepared")
        seeds.check(config, method, is_resident(streams, _resident_bytes(config)))
    create_workdir(workdir, original)
    if "curve" in chosen:
        write_json(workdir / CHOSEN, chosen)
    scored = scored or streams["train"]
    result, embedder = _train(method, variables, settings, streams, scored, steps, described, workdir, signals, quiet)
    show(results.table(result), quiet)
    result = write_result(workdir, result, config["data"].get("path"))
    if reported:
        report.at_end(workdir, settings, scored, embedder, quiet=quiet)
    return result


def _initial(method: Method, config: Mapping[str, Any], dataset: Dataset) -> Any:
    first = {k: v[:2] for k, v in dataset.features.items()}
    if not config["init_from"]:
        return seeds.init_variables(method, seeds.seeds_of(config), first)
    if method.load is None:
        raise UserError(
            f"init_from is '{config['init_from']}', but {config['method']} can't load released weights: leave it empty"
        )
    variables = seeds.init_variables(method, (config["seed"],), first)
    return seeds.repeat_for_seeds(method.load(config["init_from"], variables), config["num_seeds"])


def _train(
    method: Method,
    variables: Any,
    config: dict,
    streams: dict[str, Dataset],
    scored: Dataset,
    steps: dict,
    described: dict,
    workdir: Path,
    signals: Signals | None,
    quiet: bool,
) -> tuple[dict[str, Any], Callable]:
    """Trains and scores. Returns the result, and ``features -> [n, d]`` to embed scored data."""
    dataset, every, size, chosen = streams["train"], config["run"], config["batch_size"], seeds.seeds_of(config)
    predict = make_infer(seeds.over_seeds(method.predict, len(chosen)), size)
    compiled = cache(partial(make_infer, batch_size=size))
    epoch = 1 if all(phase.whole for phase in method.phases) else sum(steps.values())
    schedule = Schedule(
        every["log_every"],
        every["evaluate_every"] * epoch,
        every["checkpoint_every"] * epoch,
        _resident_bytes(config),
    )

    def infer(function, variables):
        return compiled(function)(variables, dataset.features)

    def assign(variables, dataset=scored) -> list[np.ndarray]:
        """Soft assignments [n, k] for each seed."""
        probabilities = predict(variables, dataset.features)
        return [probabilities] if len(chosen) == 1 else list(probabilities.swapaxes(0, 1))

    store = Store(workdir / "checkpoints", keep=every["keep"])
    try:
        state, seconds = fit(
            method,
            streams,
            variables,
            seed_list=chosen,
            batch_size=size,
            schedule=schedule,
            store=store,
            open_log=lambda step, total: MetricsLog(
                workdir / "metrics.jsonl", step, total, size * len(chosen), quiet=quiet, hint=_hint(config)
            ),
            meta={
                "config": config,
                "versions": results.versions(),
                "steps_per_epoch": steps,
                "features": shapes_of(dataset),
                "scalings": dataset.scalings,
                "data": described,
            },
            infer=infer,
            evaluate=lambda variables: results.score_all(assign(variables), scored),
            signals=signals,
        )
    finally:
        store.close()
    assigned = assign(state.variables)
    if config.get("balanced"):
        assigned = [balanced(p, log_shares(config)) for p in assigned]

    def clusters() -> list[np.ndarray]:
        """The cluster of each training example [n] for each seed."""
        return [p.argmax(1) for p in (assigned if scored is dataset else assign(state.variables, dataset))]

    values = seeds.criteria(method, chosen, local(state.variables), infer, clusters)
    best = int(np.argmin(values))
    result = results.result_of(config, dataset, scored, assigned[best], seconds)
    result |= {"seed": chosen[best], "criterion": values[best]}
    if result["scores"]["occupied"] < config["num_clusters"]:
        results.warn_of_empty_clusters(config["num_clusters"])
    names: list[list[str]] = []
    if method.report:
        extra = method.report(seeds.keys_of((config["seed"],)), dataset, clusters()[best], scored)
        result["baselines"] += results.baselines_of(extra.baselines, scored)
        result["names"] = names = extra.names
        results.write_clusters(workdir / "clusters.json", assigned[best], names)
    if len(chosen) > 1:
        result["seeds"] = seeds.summary(chosen, [results.score(p, scored) for p in assigned], values)
    selected = state.variables if len(chosen) == 1 else seeds.take_seed(local(state.variables), best)
    embedder = partial(compiled(method.embed), selected)
    rows = describe.describe(config, scored, assigned, best, embedder)
    results.write_assignments(
        workdir / "assignments.csv", scored.ids, assigned[best], names, rows.clusters, rows.columns
    )
    result = with_feature_scores(
        result | rows.summary, embedder, scored, assigned[best].argmax(1), rows.embedding, rows.neighbours
    )
    return result, embedder


def _hint(config: Mapping[str, Any]) -> str:
    """What a user with pictures of their own may do instead of a training from scratch that takes long."""
    if config["method"] != "cc" or config["data"].get("source") not in ("folder", "arrays"):
        return ""
    return "a pretrained encoder clusters photos in minutes: --config=photos"


def _resident_bytes(config: Mapping[str, Any]) -> int:
    return int(config["run"]["resident_gib"] * 2**30)
