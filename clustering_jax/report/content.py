"""Collects the content of a report from a workdir and, if they are available, from the data and the checkpoint."""

from __future__ import annotations

import json
import math
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
from clustering_jax.report.assigned import Assigned, read_assignments
from clustering_jax.report.pictures import folder_of, pictures_of
from clustering_jax.training.workdir import finished

POINTS = 50_000  # largest number of rows whose embedding is computed, for the map
COPIED = 1 << 28  # largest number of bytes of the features of a sample of the rows


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
      locked: clusters that corrections must not change.
      folder: directory of the files that the ids of `dataset` name, or None.
      workdir: directory of the run.
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
    locked: list[int]
    folder: Path | None
    workdir: Path
    curve: Mapping[str, Any] | None
    notes: list[str]


def clusters_of(content: Content) -> list[int]:
    """The numbers of the clusters, without those that corrections have removed."""
    k = content.assigned.k if content.assigned else content.config["num_clusters"]
    return sorted((content.result or {}).get("clusters", range(k)))


def sample(n: int, most: int = POINTS) -> np.ndarray:
    """Up to `most` of n row indices, ascending. Every process draws the same indices."""
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(0).choice(n, most, replace=False))


def sampled(dataset: Dataset) -> np.ndarray:
    """The rows whose embedding is computed: all of them, or a sample that the memory holds a second time."""
    n = dataset.num_examples
    width = sum(math.prod(values.shape[1:]) * values.dtype.itemsize for values in dataset.features.values())
    return sample(n, POINTS if n <= POINTS else min(POINTS, max(1, COPIED // width)))


def embedded(embed: Callable, dataset: Dataset) -> np.ndarray:
    """Computes the embedding [m, d] of the rows that `sampled` draws."""
    rows, features = sampled(dataset), dataset.features
    return embed(features if len(rows) == dataset.num_examples else {k: values[rows] for k, values in features.items()})


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


def of_workdir(workdir: Path, *, embed: bool = True) -> Content:
    """Collects the content for any workdir. If possible, loads the data and embeds it with the newest checkpoint.

    Args:
      workdir: directory of the run.
      embed: whether to embed the rows, for the map.

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
    k = 1 + max((result or {}).get("clusters", [config["num_clusters"] - 1]))  # after corrections, not all are there
    assigned = read_assignments(workdir / "assignments.csv", k) if result else None
    if dataset and (change := _difference(workdir, dataset, predictor, assigned)):
        notes.append(f"the data has {change}")
        dataset = None
    if not (predictor and dataset):
        return _content(workdir, config, result, assigned, dataset, None, notes)
    if assigned is None:
        probabilities = predictor.predict_proba(dataset.features)
        assigned = Assigned(dataset.ids, probabilities.argmax(1), probabilities.max(1), probabilities.shape[1], {})
        result = result or _so_far(config, dataset, probabilities)
    embedding = embedded(predictor.embed, dataset) if embed else None
    return _content(workdir, config, result, assigned, dataset, embedding, notes)


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
        None if embedding is None or dataset is None else sampled(dataset),
        embedding,
        pictures_of(config, dataset),
        (result or {}).get("names", []),
        [entry["cluster"] for entry in read_json(workdir / "clusters.json", list) or [] if entry.get("locked")],
        folder_of(config, dataset),
        workdir,
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
    if assigned and assigned.ids != list(dataset.ids):
        return "ids that differ from assignments.csv, or are in another order"
    return ""


def _so_far(config: Mapping[str, Any], dataset: Dataset, probabilities: np.ndarray) -> dict[str, Any]:
    """The result of the newest checkpoint of an unfinished run."""
    result = result_of({**config, "kmeans_baseline": False}, dataset, dataset, probabilities, float("nan"))
    result["protocol"] |= {"trained_on": "see config, data", "scored_at": "newest checkpoint of an unfinished run"}
    return result


def _log(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, up to one that is damaged or still being written."""
    return read_json_lines(path)[0]
