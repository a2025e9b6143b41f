"""The workdir of a run that is corrected: reads a finished one, and writes a new one."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clustering_jax import data
from clustering_jax.data.base import Dataset
from clustering_jax.data.joined import picked
from clustering_jax.editing.state import State
from clustering_jax.errors import UserError
from clustering_jax.files import read_json, reason_of, write_json
from clustering_jax.inference import levels, results
from clustering_jax.inference.features import with_feature_scores
from clustering_jax.inference.predictor import Predictor
from clustering_jax.inference.results import known_scores
from clustering_jax.inference.rows import medoids, unit
from clustering_jax.inference.rule import EDITS, Rule, numbers
from clustering_jax.training.workdir import check_assignments, write_result

COPIED = ("config.json", "metrics.jsonl", "num_clusters.json", "estimator.json", "checkpoints")


class Finished(NamedTuple):
    """A finished run, with its rows.

    Attributes:
      predictor: its model and the rule of its corrections so far.
      result: content of result.json.
      edits: content of edits.json, or None.
      dataset: the scored rows.
      lines: the lines of assignments.csv, by the names of the columns.
      embedding: [n, d], rows of norm 1.
      neighbours: row numbers of the nearest rows in it, int [n, 20] or more; None if they are not known.
    """

    predictor: Predictor
    result: dict[str, Any]
    edits: dict[str, Any] | None
    dataset: Dataset
    lines: list[dict[str, str]]
    embedding: np.ndarray
    neighbours: np.ndarray | None = None


def read(workdir: Path, dataset: Dataset | None = None) -> Finished:
    """Reads a finished run.

    Args:
      workdir: directory of the run.
      dataset: its scored rows; None loads them by the config of the run.

    Raises:
      UserError: the run has not finished, or its data is not there any more.
    """
    result = read_json(workdir / "result.json")
    if result is None:
        raise UserError(f"{workdir} holds no finished run: give the --workdir of a run that has ended")
    predictor = Predictor.restore(workdir)
    config = predictor.config
    dataset = dataset or data.load(**(config["scored"] or config["data"]))
    check_assignments(workdir, result)
    with (workdir / "assignments.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        lines = list(csv.DictReader(file))
    # A folder may hold more files by now.
    dataset = picked(dataset, [line["id"] for line in lines], str(workdir))
    embedding = unit(predictor.embed(dataset.features))
    return Finished(predictor, result, read_json(workdir / EDITS), dataset, lines, embedding)


def check_new(output: Path) -> None:
    """Raises UserError if the directory exists and is not empty."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"--output={output} is there already: give a new directory")


def write(
    source: Path, output: Path, run: Finished, state: State, parent: str, more: Sequence[str] = ()
) -> dict[str, Any]:
    """Writes the workdir of a corrected run, which appears when it is complete.

    Args:
      source: directory with the config, the log and the checkpoints.
      output: the new directory.
      run: the run.
      state: its clusters after the corrections.
      parent: the run that was corrected, for edits.json.
      more: further files and directories of `source` to copy.

    Returns:
      The content of result.json.
    """
    edits = {"parent": parent, **state.to_json()}
    rule = Rule.of_run(run.result, edits)
    # The model's own assignments: those of the predictor are mapped by earlier corrections.
    own = run.predictor.model_proba(run.dataset.features)
    probabilities, clusters = assigned(rule, own, run, state)
    result, rule = _result(run, rule, probabilities, clusters, state)
    columns = _columns(run, rule, probabilities, clusters)
    ids = rule.ids.tolist()
    names = {cluster: state.names.get(cluster, []) for cluster in ids}
    entries = [
        {"cluster": c, "size": int((clusters == c).sum()), "names": names[c], "locked": c in state.locked} for c in ids
    ]
    words = names if any(names.values()) else {}
    partial = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        partial.mkdir(parents=True)
        for name in (*COPIED, *more):
            copy(source / name, partial / name)
        results.write_assignments(partial / "assignments.csv", run.dataset.ids, probabilities, words, clusters, columns)
        write_json(partial / "clusters.json", entries)
        write_json(partial / EDITS, edits)
        result = write_result(partial, result)
        partial.replace(output)
    except OSError as error:
        raise UserError(f"--output={output} can't be written ({reason_of(error)})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


def assigned(rule: Rule, own: np.ndarray, run: Finished, state: State) -> tuple[np.ndarray, np.ndarray]:
    """Soft assignments and clusters of the rows of a run after corrections.

    A row that was moved by hand has the probability 1.

    Args:
      rule: the rule after the corrections.
      own: soft assignments to the outputs of the model, [n, k].
      run: the run.
      state: its clusters after the corrections.

    Returns:
      ``(probabilities [n, number of clusters], clusters int [n])``.
    """
    probabilities = rule.mapped(own, lambda: run.embedding).copy()
    position, nowhere = {row: i for i, row in enumerate(run.dataset.ids)}, []
    for row, cluster in state.moved.items():
        if cluster < 0:
            nowhere.append(position[row])
        else:
            probabilities[position[row]] = rule.ids == cluster
    clusters = rule.clusters(probabilities)
    clusters[nowhere] = -1
    return probabilities, clusters


def clusters_of(run: Finished, state: State) -> np.ndarray:
    """The cluster of each row of a run, int [n]; -1 for none."""
    own = run.predictor.model_proba(run.dataset.features)
    return assigned(Rule.of_run(run.result, state.to_json()), own, run, state)[1]


def _result(
    run: Finished, rule: Rule, probabilities: np.ndarray, clusters: np.ndarray, state: State
) -> tuple[dict[str, Any], Rule]:
    """The content of result.json, and the rule with the levels of the new clusters."""
    # Other seeds and candidates have other clusters.
    others = ("seeds", "candidates", "verdict")
    result: dict[str, Any] = {name: value for name, value in run.result.items() if name not in others}
    result["scores"] = results.score(probabilities, run.dataset)
    embed, places = run.predictor.embed, probabilities.argmax(1)
    result = with_feature_scores(result, embed, run.dataset, places, run.embedding, run.neighbours)
    result["clusters"] = rule.ids.tolist()
    if any(state.names.values()):
        result["names"] = [state.names.get(cluster, []) for cluster in range(state.free)]
    if "rejection" in result:
        result["rejection"] = {**result["rejection"], "assigned": int((clusters >= 0).sum())}
        labels = run.dataset.labels
        kept = None if labels is None else (clusters >= 0) & (labels >= 0)
        if labels is not None and np.any(kept):
            result["rejection"]["scores"] = known_scores(labels[kept], clusters[kept])
    if counts := run.predictor.config["levels"]:
        occupied, links = levels.tree(run.embedding, clusters)
        groups = levels.groups(occupied, links, state.free, counts)
        result["levels"] = {"groups": groups, "clusters": occupied.tolist(), "linkage": links.tolist()}
        rule = rule._replace(levels=groups)
    return result, rule


def _columns(run: Finished, rule: Rule, probabilities: np.ndarray, clusters: np.ndarray) -> Mapping[str, Sequence[str]]:
    """The further columns: those that depend on the clusters anew, the others as they were."""
    columns = dict(rule.columns(probabilities))
    for name in ("outlier", "duplicate_group", "new_group"):
        if name in run.lines[0]:
            columns[name] = [line[name] for line in run.lines]
    columns["typical"] = numbers(medoids(run.embedding, clusters), 0)
    changed = rule.level_columns(clusters)  # at the end, and for rows without a cluster too
    return {name: texts for name, texts in columns.items() if name not in changed} | changed


def copy(source: Path, target: Path) -> None:
    """Copies a file or a directory, if it is there."""
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy2(source, target)
