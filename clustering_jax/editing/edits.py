"""Corrects a finished run: reads its workdir, writes a new one, and changes nothing in the old one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from clustering_jax.data.base import Dataset
from clustering_jax.editing import state as states
from clustering_jax.editing.known import known
from clustering_jax.editing.match import new_numbers, read_old, renumbered
from clustering_jax.editing.request import Request
from clustering_jax.editing.retraining import temporary, trained
from clustering_jax.editing.spread import nearest_rows, spread
from clustering_jax.editing.state import State
from clustering_jax.editing.training import Training
from clustering_jax.editing.workdir import Finished, assigned, check_new, copy, read, write
from clustering_jax.errors import UserError
from clustering_jax.files import read_json
from clustering_jax.inference import describe
from clustering_jax.inference.rule import Rule


def edit(
    workdir: Path,
    output: Path,
    request: Request,
    dataset: Dataset | None = None,
    *,
    training: Training | None = None,
    labels: Mapping[str, str] = MappingProxyType({}),
    pairs: Sequence[tuple[str, str, int]] = (),
    quiet: bool = False,
) -> dict[str, Any]:
    """Corrects the clusters of a finished run and, if asked, trains it on the corrections.

    Args:
      workdir: directory of the run. It is only read.
      output: the new directory.
      request: the corrections.
      dataset: the scored rows of the run; None loads them by its config.
      training: how to train; None does not train.
      labels: class of a few rows by their ids, for training.
      pairs: ``(id, id, 1)`` for rows of the same cluster, ``(id, id, 0)`` for rows of different ones, for training.
      quiet: whether to print nothing while training.

    Returns:
      The content of the new result.json.

    Raises:
      UserError: a correction can't be made, `output` is not empty, or the run or its data can't be read.
      Diverged: a loss was not finite.
      Interrupted: a signal arrived while training; nothing is written.
    """
    check_new(output)
    run = read(workdir, dataset)
    before = start(run)
    unknown = request.move.keys() - set(run.dataset.ids)
    if unknown:
        raise UserError(f"there is no row '{min(unknown)}' to move: ids are those of assignments.csv")
    clusters = np.array([int(line["cluster"]) for line in run.lines])
    request = request._replace(move=_moves(request, run, clusters, before))
    states.check(before, request)
    position = {row: i for i, row in enumerate(run.dataset.ids)}
    for row, cluster in request.move.items():
        clusters[position[row]] = cluster

    def members(cluster: int) -> tuple[list[str], np.ndarray]:
        own = np.flatnonzero(clusters == cluster)
        return [run.dataset.ids[i] for i in own], run.embedding[own]

    after = states.applied(before, request, members)
    if training is None:
        return write(workdir, output, run, after, str(workdir))
    with temporary(output) as directory:
        run, after = _retrained(workdir, directory, run, after, training, labels, pairs, quiet)
        return write(directory, output, run, after, str(workdir))


def match(workdir: Path, output: Path, older: Path, dataset: Dataset | None = None) -> dict[str, Any]:
    """Gives the clusters of a finished run the numbers and names of an older run.

    Args:
      workdir: directory of the run. It is only read.
      output: the new directory.
      older: directory of the older run.
      dataset: the scored rows of the run; None loads them by its config.

    Returns:
      The content of the new result.json.

    Raises:
      UserError: the runs have no row in common, `output` is not empty, or a run or its data can't be read.
    """
    check_new(output)
    old, run = read_old(older), read(workdir, dataset)
    state = start(run)
    clusters = np.array([int(line["cluster"]) for line in run.lines])
    to, free = new_numbers(sorted(state.clusters), run.dataset.ids, clusters, old)
    return write(workdir, output, run, renumbered(state, to, free, old.names, str(older)), str(workdir))


def start(run: Finished) -> State:
    """The state of a run before further corrections."""
    predictor = run.predictor
    names = dict(zip(predictor.clusters, predictor.names, strict=True)) if predictor.names else {}
    return states.start(predictor.config["num_clusters"], names, run.edits)


def _moves(request: Request, run: Finished, clusters: np.ndarray, state: State) -> dict[str, int]:
    """The moves that change something, so that a whole, corrected assignments.csv can be given."""
    now = dict(zip(run.dataset.ids, clusters.tolist(), strict=True))
    moves = {row: cluster for row, cluster in request.move.items() if now[row] != cluster}
    fixed = state.locked - set(request.unlock)
    for row in moves:
        if now[row] in fixed:
            raise UserError(f"row '{row}' is in cluster {now[row]}, which is locked: leave it out, or unlock it")
    return moves


def _retrained(
    workdir: Path,
    directory: Path,
    run: Finished,
    state: State,
    training: Training,
    labels: Mapping[str, str],
    pairs: Sequence[tuple[str, str, int]],
    quiet: bool,
) -> tuple[Finished, State]:
    """Trains on the corrections. Returns the run with the new model, and the state in which output i is cluster i."""
    own, settings = run.predictor.model_proba(run.dataset.features), run.predictor.config["rows"]
    probabilities, clusters = assigned(Rule.of_run(run.result, state.to_json()), own, run, state)
    describe.check({**run.predictor.config, "levels": ()})

    def spread_out(targets: np.ndarray, rows: np.ndarray, known_targets: np.ndarray) -> np.ndarray:
        graph = nearest_rows(run.embedding, settings["neighbours"] if len(targets) <= settings["limit"] else 0)
        return spread(probabilities, targets, rows, known_targets, graph)

    facts, classes = known(state, run.dataset.ids, clusters, labels, pairs, spread_out)
    config = read_json(workdir / "config.json")
    run, state = trained(directory, config, run, state, clusters, facts, training, quiet=quiet)
    copy(workdir / "estimator.json", directory / "estimator.json")
    step = {"retrain": training._asdict(), "labels": dict(labels), "pairs": [list(pair) for pair in pairs]}
    words = {classes[label]: [label] for label in classes if not label.isdecimal()}
    return run, state._replace(
        moved={**state.moved, **{row: classes[label] for row, label in labels.items()}},
        names={**words, **{cluster: names for cluster, names in state.names.items() if names}},
        history=[*state.history, {name: value for name, value in step.items() if value}],
    )
