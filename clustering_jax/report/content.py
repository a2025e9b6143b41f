"""What a report tells, gathered from a workdir and from the data, where those can be had."""

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
from clustering_jax.files import read_json
from clustering_jax.inference.predictor import Predictor
from clustering_jax.inference.results import result_of

POINTS = 2000  # of the map and of the silhouette


class Assigned(NamedTuple):
    """clusters: int [n]. confidence: float32 [n], the probability of that cluster. k: how many clusters there are."""

    clusters: np.ndarray
    confidence: np.ndarray
    k: int


class Content(NamedTuple):
    """result: of result.json; of a run that has not finished, what its newest checkpoint gives, or None.

    log: the lines of metrics.jsonl. dataset: what was scored. rows: int [m], which of it `embedding` [m, d] has.
    names: words for each cluster. curve: of num_clusters.json. notes: what is left out and why, a line each.
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
    names: list[list[str]]
    curve: Mapping[str, Any] | None
    notes: list[str]


def sample(n: int) -> np.ndarray:
    """Up to POINTS of n rows, ascending, the same ones in every process."""
    return np.sort(np.random.default_rng(0).choice(n, min(n, POINTS), replace=False))


def embedded(embed: Callable, dataset: Dataset) -> np.ndarray:
    """``embed(features)`` [m, d] of the rows of `sample`."""
    rows = sample(dataset.num_examples)
    return embed({name: values[rows] for name, values in dataset.features.items()})


def of_run(workdir: Path, config: Mapping[str, Any], dataset: Dataset, embedding: np.ndarray) -> Content:
    """Of a run that has just finished, with its data in hand."""
    result = read_json(workdir / "result.json")
    assigned = read_assignments(workdir / "assignments.csv", config["num_clusters"])
    # As a checkpoint keeps it: JSON knows no tuples.
    return _content(workdir, json.loads(json.dumps(config)), result, assigned, dataset, embedding, [])


def of_workdir(workdir: Path) -> Content:
    """Of any workdir: with the data loaded anew and embedded by the newest checkpoint, where both are there.

    Raises:
      UserError: it holds no run.
    """
    given, result = read_json(workdir / "config.json"), read_json(workdir / "result.json")
    if given is None:
        raise UserError(f"{workdir} holds no run (there is no config.json): give the --workdir of one")
    notes: list[str] = []
    predictor = _or_note(notes, lambda: Predictor.restore(workdir))
    chosen = read_json(workdir / "num_clusters.json") or {}
    # A predictor's config is that of the seed that was kept.
    own = {k: given[k] for k in ("seed", "num_seeds")}
    config = {**predictor.config, **own} if predictor else {**given, **{k: v for k, v in chosen.items() if k in given}}
    dataset = _or_note(notes, lambda: data.load(**(config["scored"] or config["data"])))
    assigned = read_assignments(workdir / "assignments.csv", config["num_clusters"]) if result else None
    if dataset and (change := _change(workdir, dataset, predictor, assigned)):
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
        (result or {}).get("names", []),
        read_json(workdir / "num_clusters.json"),
        notes,
    )


def _or_note(notes: list[str], make: Callable) -> Any:
    """What `make` makes; where the user would have to put something right, None and a note."""
    try:
        return make()
    except UserError as error:
        notes.append(str(error))
        return None


def _change(workdir: Path, dataset: Dataset, predictor: Predictor | None, assigned: Assigned | None) -> str:
    """In what the data is another than the run's, in words; "" where nothing tells so."""
    for name, rows in dataset.features.items():
        if predictor and predictor.shapes.get(name) != rows.shape[1:]:
            return f"{name} of shape {rows.shape[1:]} now, the run had {predictor.shapes.get(name)}"
    if assigned and len(assigned.clusters) != dataset.num_examples:
        return f"{dataset.num_examples} rows now, the run had {len(assigned.clusters)}"
    if assigned and not _has_ids(workdir / "assignments.csv", dataset.ids):
        return "other ids now, or in another order, than assignments.csv"
    return ""


def _has_ids(path: Path, ids: list[str]) -> bool:
    """Whether assignments.csv is of these rows."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        next(lines)
        return all(row[0] == name for row, name in zip(lines, ids, strict=True))


def _so_far(config: Mapping[str, Any], dataset: Dataset, probabilities: np.ndarray) -> dict[str, Any]:
    """`result_of` the newest checkpoint of a run that has not finished."""
    result = result_of({**config, "kmeans_baseline": False}, dataset, dataset, probabilities, float("nan"))
    result["protocol"] |= {"trained_on": "see config, data", "scored_at": "newest checkpoint of an unfinished run"}
    return result


def read_assignments(path: Path, k: int) -> Assigned | None:
    """assignments.csv in 8 bytes a row; None where it is absent."""
    if not path.exists():
        return None
    with path.open(encoding="utf-8") as file:
        lines = csv.reader(file)
        next(lines)
        pairs = np.fromiter(((int(row[1]), float(row[2])) for row in lines), np.dtype("i4,f4"))
    return Assigned(pairs["f0"], pairs["f1"], k)


def _log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
