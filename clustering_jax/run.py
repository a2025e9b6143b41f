"""One run from a plain config to a finished workdir: data, method, fit, assignments, result."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from clustering_jax import data, report
from clustering_jax.data.base import Dataset
from clustering_jax.data.images.streaming import Lazy
from clustering_jax.errors import UserError
from clustering_jax.files import read_json, write_json
from clustering_jax.inference import results
from clustering_jax.inference.embedding import embed
from clustering_jax.kmeans import number_of_clusters
from clustering_jax.method import Method
from clustering_jax.methods import from_config
from clustering_jax.parallel import any_process_blocking, data_mesh, is_first, local
from clustering_jax.training import seeds
from clustering_jax.training.batches import is_resident
from clustering_jax.training.checkpoint import Store
from clustering_jax.training.evaluate import make_infer
from clustering_jax.training.log import MetricsLog
from clustering_jax.training.loop import Schedule, fit, keys_of, member
from clustering_jax.training.signals import Signals

CHOSEN = "num_clusters.json"


def train(
    config: dict[str, Any],
    workdir: Path,
    signals: Signals | None = None,
    *,
    streams: Mapping[str, Dataset] | None = None,
    quiet: bool = False,
    reported: bool = True,
) -> dict[str, Any]:
    """Trains what `config` says in `workdir` and returns what result.json holds.

    Args:
      signals: as for `fit`. streams: data in memory, in place of what `config` names. quiet: prints nothing.
      reported: ends with report.html.

    Raises:
      UserError, Interrupted, Diverged: see `fit`; also a workdir that holds another config's run.
    """
    check_workdir(workdir, config)
    seeds.check_numbers(config)
    result = read_json(workdir / "result.json")
    if result:
        done = f"{workdir} is finished (wall time {result['wall_time_seconds']:.0f} s); a new run needs a new --workdir"
        _say(done, quiet)
        return result
    given, config = config, config if streams else _embedded(config, workdir)
    streams = dict(streams or load_streams(config))
    _warn(streams)
    scored = data.load(**config["scored"]) if config["scored"] else None
    _check_scored(streams["train"], scored)
    if config["kmeans_baseline"] and isinstance((scored or streams["train"]).features.get("image"), Lazy):
        raise UserError("kmeans_baseline compares all pixels in memory: leave it out, or don't set streaming")
    chosen = _num_clusters(config, streams["train"], workdir, quiet)
    settings = {**config, "num_clusters": chosen["num_clusters"]}
    settings["batch_size"] = _batch_size(settings, streams)
    steps = {name: d.num_examples // settings["batch_size"] for name, d in streams.items()}
    method = from_config(settings, steps)
    # What is refused without it is refused before the preparation, which may take long.
    seeds.check(config, method, is_resident(streams, _resident_bytes(config)))
    variables = _initial(method, settings, streams["train"])
    if method.prepare:
        streams["train"] = method.prepare(keys_of((config["seed"],)), streams["train"], workdir / "prepared")
        seeds.check(config, method, is_resident(streams, _resident_bytes(config)))
    _open(workdir, given)
    if "curve" in chosen:
        write_json(workdir / CHOSEN, chosen)
    scored = scored or streams["train"]
    result, embedder = _train(method, variables, settings, streams, scored, steps, workdir, signals, quiet)
    _say(results.table(result), quiet)
    write_json(workdir / "result.json", result)
    if reported:
        report.at_end(workdir, settings, scored, embedder, quiet=quiet)
    return result


def _open(workdir: Path, config: Mapping[str, Any]) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "config.json", config)
    except OSError as error:
        raise UserError(f"--workdir={workdir} can't be written ({error.strerror})") from error
    if jax.process_count() > 1 and any_process_blocking(not _seen(workdir / "config.json")):
        raise UserError(f"--workdir={workdir} is not one directory for all processes: they must share it")


def _seen(path: Path) -> bool:
    """Whether the file is there, within the minute after which network file systems look again."""
    until = time.monotonic() + 60
    while not path.exists() and time.monotonic() < until:
        time.sleep(1)
    return path.exists()


def check_workdir(workdir: Path, config: Mapping[str, Any]) -> None:
    """Raises UserError where `workdir` holds a run of another config, naming the keys that differ."""
    found = read_json(workdir / "config.json")
    if found is None:
        return
    ours, theirs = (flatten_dict(dict(c), sep=".", keep_empty_nodes=False) for c in (config, found))
    # JSON knows lists only, and the config in hand may hold tuples.
    ours = {k: list(v) if isinstance(v, tuple) else v for k, v in ours.items()}
    keys = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
    if keys:
        changes = ", ".join(f"{k} ({theirs.get(k)!r} there, {ours.get(k)!r} now)" for k in keys)
        raise UserError(f"{workdir} holds a run of another config: {changes}; use a new --workdir or the same config")


def _embedded(config: dict[str, Any], workdir: Path) -> dict[str, Any]:
    """`config` with paths of embeddings, made in the workdir where a model is named but no path."""
    settings, path = config.get("embed"), config["data"].get("path", "")
    if not settings or "path" not in config["data"]:
        return config
    if not path and not settings["clip"]:
        raise UserError(
            "nothing to cluster: give --config.data.path (embeddings) or --config.embed.clip (a CLIP model)"
        )
    if not path and jax.process_count() > 1:
        raise UserError(
            "images are embedded by one process: python -m clustering_jax.embed --config=FILE --output=DIR first, then "
            "here --config.data.path=DIR"
        )
    path = path or str(embed(workdir / "embeddings", **settings))
    scored = {**config["scored"], "path": config["scored"].get("path") or path} if config["scored"] else {}
    return {**config, "data": {**config["data"], "path": path}, "scored": scored}


def load_streams(config: Mapping[str, Any]) -> dict[str, Dataset]:
    """The data sets of a config by stream name."""
    streams = {"train": data.load(**config["data"])}
    if config["unlabelled"]:
        streams["unlabelled"] = data.load(**config["unlabelled"])
    return streams


def _warn(streams: Mapping[str, Dataset]) -> None:
    for dataset in streams.values():
        for note in dataset.notes:
            warnings.warn(note, stacklevel=2)


def _check_scored(dataset: Dataset, scored: Dataset | None) -> None:
    """Raises UserError where `scored` is not of the training data's kind."""
    if scored is None:
        return
    if dataset.scalings is not None:
        raise UserError("scored is for images and embeddings: views that were scaled alone don't fit those trained on")
    ours, theirs = (_shapes(d) for d in (dataset, scored))
    if ours != theirs:
        raise UserError(f"scored has features {theirs}, the training data {ours}: both must come from one source")


def _num_clusters(config: Mapping[str, Any], dataset: Dataset, workdir: Path, quiet: bool) -> dict[str, Any]:
    """``{"num_clusters": K}``; where the config says 0, with the curve it is chosen by, kept in the workdir."""
    if config["num_clusters"]:
        return {"num_clusters": config["num_clusters"]}
    found = read_json(workdir / CHOSEN) or number_of_clusters.num_clusters(
        dataset, config["cluster_range"], seed=config["seed"]
    )
    _say(number_of_clusters.summary_line(found), quiet)
    return found


def _batch_size(config: Mapping[str, Any], streams: Mapping[str, Dataset]) -> int:
    k, n = config["num_clusters"], streams["train"].num_examples
    wanted = config["batch_size"] or n
    smallest = min(d.num_examples for d in streams.values())
    if not 2 <= k <= n:
        raise UserError(f"num_clusters is {k}: choose between 2 and the number of examples, {n}")
    if wanted < 2:
        raise UserError(f"batch_size is {wanted}: at least 2 are needed, 0 is all")
    if config["epochs"] < (0 if config["init_from"] else 1):
        raise UserError(f"epochs is {config['epochs']}: nothing would be trained (0 needs init_from)")
    if smallest < wanted:
        warnings.warn(f"only {smallest} examples: batch size {smallest} instead of {wanted}", stacklevel=2)
    size = min(wanted, smallest)
    data_mesh(size)  # several processes must be able to share a batch
    return size


def _initial(method: Method, config: Mapping[str, Any], dataset: Dataset) -> Any:
    first = {k: v[:2] for k, v in dataset.features.items()}
    if not config["init_from"]:
        return seeds.initial(method, seeds.seeds_of(config), first)
    if method.load is None:
        raise UserError(
            f"init_from is '{config['init_from']}', but of {config['method']} there are no released weights"
        )
    variables = seeds.initial(method, (config["seed"],), first)
    return seeds.stacked(method.load(config["init_from"], variables), config["num_seeds"])


def _train(
    method: Method,
    variables: Any,
    config: dict,
    streams: dict[str, Dataset],
    scored: Dataset,
    steps: dict,
    workdir: Path,
    signals: Signals | None,
    quiet: bool,
) -> tuple[dict[str, Any], Callable]:
    """The result, and how features of the scored data are embedded: ``features -> [n, d]``."""
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
        """Soft assignments [n, k] of each seed."""
        found = predict(variables, dataset.features)
        return [found] if len(chosen) == 1 else list(found.swapaxes(0, 1))

    store = Store(workdir / "checkpoints", keep=every["keep"])
    try:
        state, seconds = fit(
            method,
            streams,
            variables,
            seeds=chosen,
            batch_size=size,
            schedule=schedule,
            store=store,
            open_log=lambda step, total: MetricsLog(
                workdir / "metrics.jsonl", step, total, size * len(chosen), quiet=quiet
            ),
            meta={
                "config": config,
                "versions": results.versions(),
                "steps_per_epoch": steps,
                "features": _shapes(dataset),
                "scalings": dataset.scalings,
            },
            infer=infer,
            evaluate=lambda variables: results.score_all(assign(variables), scored),
            signals=signals,
        )
    finally:
        store.close()
    found = assign(state.variables)

    def clusters() -> list[np.ndarray]:
        return [p.argmax(1) for p in (found if scored is dataset else assign(state.variables, dataset))]

    values = seeds.criteria(method, chosen, local(state.variables), infer, clusters)
    best = int(np.argmin(values))
    result = results.result_of(config, dataset, scored, found[best], seconds)
    result |= {"seed": chosen[best], "criterion": values[best]}
    names: list[list[str]] = []
    if method.report:
        told = method.report(keys_of((config["seed"],)), dataset, clusters()[best], scored)
        result["baselines"] += results.baselines_of(told.baselines, scored)
        result["names"] = told.names
        names = told.names
        results.write_clusters(workdir / "clusters.json", found[best], names)
    results.write_assignments(workdir / "assignments.csv", scored.ids, found[best], names)
    if len(chosen) > 1:
        result["seeds"] = seeds.summary(chosen, [results.score(p, scored) for p in found], values)
    kept = state.variables if len(chosen) == 1 else member(local(state.variables), best)
    return result, partial(compiled(method.embed), kept)


def _say(text: str, quiet: bool) -> None:
    if is_first() and not quiet:
        print(text)


def _resident_bytes(config: Mapping[str, Any]) -> int:
    return int(config["run"]["resident_gib"] * 2**30)


def _shapes(dataset: Dataset) -> dict[str, list]:
    return {k: [list(v.shape[1:]), str(v.dtype)] for k, v in dataset.features.items()}
