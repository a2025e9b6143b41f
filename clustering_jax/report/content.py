"""Collects the content of a report from a workdir and, if they are available, from the data and the checkpoint."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clustering_jax import data
from clustering_jax.data.base import Dataset
from clustering_jax.errors import UserError
from clustering_jax.files import read_json, read_json_lines
from clustering_jax.inference.predictor import Predictor
from clustering_jax.inference.results import result_of
from clustering_jax.report.pictures import pictures_of
from clustering_jax.training.workdir import finished

POINTS = 2000  # largest number of points in the map and in the silhouette


class Assigned(NamedTuple):
    """The hard assignments.

    Attributes:
      clusters: cluster of each row, int [n].
      confidence: probability of that cluster, float32 [n].
      k: number of clusters.
    """

    clusters: np.ndarray
    confidence: np.ndarray
    k: int


class Content(NamedTuple):
    """The content of a report.

    Attributes:
      name: name of the workdir.
      config: config of the run.
      finished: whether the run has finished.
      result: content of result.json. For an unfinished run, the scores of its newest checkpoint, or None.
      log: the lines of metrics.jsonl.
      assigned: the assignments, or None.
      dataset: the scored data, or None.
      rows: indices of the rows of `dataset` that `embedding` holds, int [m], or None.
      embedding: the embedding of these rows [m, d], or None.
      pictures: one picture uint8 [h, w, c] for each row of `dataset`, with the shape [n, h, w, c], or None.
      names: words that name each cluster; empty if the method names no clusters.
      curve: content of num_clusters.json, or None.
      notes: one line for each part that is left out, with the reason.
    """

    name: str
    config: Mapping[str, Any]
    finished: bool
    result: Mapping[str, Any] | None
    log: list[dict[str, Any]]
    assigned: Assigned | None
    dataset: Dataset | None
    rows: np.ndarray | None
    embedding: np.ndarray | None
    pictures: Any
    names: list[list[str]]
    curve: Mapping[str, Any] | None
    notes: list[str]


def sample(n: int) -> np.ndarray:
    """Up to POINTS of n row indices, ascending. Every process draws the same indices."""
    return np.sort(np.random.default_rng(0).choice(n, min(n, POINTS), replace=False))


def embedded(embed: Callable, dataset: Dataset) -> np.ndarray:
    """Computes the embedding [m, d] of the rows that `sample` draws."""
    rows = sample(dataset.num_examples)
    return embed({name: values[rows] for name, values in dataset.features.items()})


def of_run(workdir: Path, config: Mapping[str, Any], dataset: Dataset, embedding: np.ndarray) -> Content:
    """Collects the content for a run that has just finished.

    Args:
      workdir: directory of the run.
      config: config of the run, with the number of clusters.
      dataset: the scored data.
      embedding: the embedding of the sampled rows [m, d].

    Returns:
      The content.
    """
    result = finished(workdir)
    assigned = read_assignments(workdir / "assignments.csv", config["num_clusters"])
    # The config of a checkpoint has lists where this one may have tuples: JSON has no tuples.
    return _content(workdir, json.loads(json.dumps(config)), result, assigned, dataset, embedding, [])


def of_workdir(workdir: Path) -> Content:
    """Collects the content for any workdir. If possible, loads the data and embeds it with the newest checkpoint.

    Args:
      workdir: directory of the run.

    Returns:
      The content.

    Raises:
      UserError: the directory holds no run.
    """
    run_config, result = read_json(workdir / "config.json", dict), finished(workdir)
    if run_config is None:
        raise UserError(f"{workdir} holds no run (there is no config.json): give the --workdir of a run")
    notes: list[str] = []
    predictor = _or_note(notes, lambda: Predictor.restore(workdir))
    chosen = read_json(workdir / "num_clusters.json", dict) or {}
    if predictor:  # Its config has the seed that was selected; the report shows the seeds of the run.
        # A candidate of the recipe "auto" has a seed of its own.
        shown = () if (result or {}).get("kept") else ("seed", "num_seeds")
        config = {**predictor.config, **{k: run_config[k] for k in shown}}
    else:
        config = {**run_config, **{k: v for k, v in chosen.items() if k in run_config}}
    dataset = _or_note(notes, lambda: data.load(**(config["scored"] or config["data"])))
    assigned = read_assignments(workdir / "assignments.csv", config["num_clusters"]) if result else None
    if dataset and (change := _difference(workdir, dataset, predictor, assigned)):
        notes.append(f"the data has {change}")
        dataset = None
    if not (predictor and dataset):
        return _content(workdir, config, result, assigned, dataset, None, notes)
    if assigned is None:
        probabilities = predictor.predict_proba(dataset.features)
        assigned = Assigned(probabilities.argmax(1), probabilities.max(1), probabilities.shape[1])
        result = result or _so_far(config, dataset, probabilities)
    return _content(workdir, config, result, assigned, dataset, embedded(predictor.embed, dataset), notes)


def _content(
    workdir: Path,
    config: Mapping[str, Any],
    result: Mapping[str, Any] | None,
    assigned: Assigned | None,
    dataset: Dataset | None,
    embedding: np.ndarray | None,
    notes: list[str],
) -> Content:
    return Content(
        workdir.name,
        config,
        (workdir / "result.json").exists(),
        result,
        _log(workdir / "metrics.jsonl"),
        assigned,
        dataset,
        None if embedding is None or dataset is None else sample(dataset.num_examples),
        embedding,
        pictures_of(config, dataset),
        (result or {}).get("names", []),
        read_json(workdir / "num_clusters.json", dict),
        notes,
    )


def _or_note(notes: list[str], make: Callable) -> Any:
    """Returns the result of `make`. A UserError becomes a note, and the result is None."""
    try:
        return make()
    except UserError as error:
        notes.append(str(error))
        return None


def _difference(workdir: Path, dataset: Dataset, predictor: Predictor | None, assigned: Assigned | None) -> str:
    """Describes how the data differs from the data of the run; "" if no difference is known."""
    for name, rows in dataset.features.items():
        if predictor and predictor.shapes.get(name) != rows.shape[1:]:
            return f"{name} of shape {rows.shape[1:]} now, the run had {predictor.shapes.get(name)}"
    if assigned and len(assigned.clusters) != dataset.num_examples:
        return f"{dataset.num_examples} rows now, the run had {len(assigned.clusters)}"
    if assigned and not _has_ids(workdir / "assignments.csv", dataset.ids):
        return "ids that differ from assignments.csv, or are in another order"
    return ""


def _has_ids(path: Path, ids: list[str]) -> bool:
    """Whether the rows of assignments.csv have these ids, in this order."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        lines = csv.reader(file)
        next(lines)
        return all(row[0] == name for row, name in zip(lines, ids, strict=True))


def _so_far(config: Mapping[str, Any], dataset: Dataset, probabilities: np.ndarray) -> dict[str, Any]:
    """The result of the newest checkpoint of an unfinished run."""
    result = result_of({**config, "kmeans_baseline": False}, dataset, dataset, probabilities, float("nan"))
    result["protocol"] |= {"trained_on": "see config, data", "scored_at": "newest checkpoint of an unfinished run"}
    return result


def read_assignments(path: Path, k: int) -> Assigned | None:
    """Reads assignments.csv.

    Args:
      path: the file.
      k: number of clusters.

    Returns:
      The assignments, in 8 bytes per row; None if the file does not exist.
    """
    if not path.exists():
        return None
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            lines = csv.reader(file)
            next(lines)
            pairs = np.fromiter(((int(row[1]), float(row[2])) for row in lines), np.dtype("i4,f4"))
    except (OSError, ValueError, IndexError, StopIteration, csv.Error) as error:
        raise UserError(f"{path} can't be read, it is damaged ({error})") from error
    return Assigned(pairs["f0"], pairs["f1"], k)


def _log(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, up to one that is damaged or still being written."""
    return read_json_lines(path)[0]
