"""Adds new rows to a finished run: assigns them, looks for new clusters, and goes on with the training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from clustering_jax.data.base import Dataset
from clustering_jax.data.joined import joined_rows, write_added
from clustering_jax.editing.added import added_rows
from clustering_jax.editing.drift import low_confidence
from clustering_jax.editing.edits import start
from clustering_jax.editing.known import known
from clustering_jax.editing.match import renumbered
from clustering_jax.editing.novelty import Novelty, novelty
from clustering_jax.editing.outcome import Both, facts_of, lines_of, result_of
from clustering_jax.editing.retraining import described, temporary, trained, write_config
from clustering_jax.editing.state import State, with_parts
from clustering_jax.editing.training import Training
from clustering_jax.editing.workdir import Finished, assigned, check_new, clusters_of, copy, read, write
from clustering_jax.errors import UserError
from clustering_jax.files import read_json
from clustering_jax.inference import describe
from clustering_jax.inference.predictor import Predictor
from clustering_jax.inference.rows import unit
from clustering_jax.inference.rule import Rule

ADDED = "added"
NEIGHBOURS = 10
ALL = "all"
DEFAULT = Training()


def update(
    workdir: Path,
    output: Path,
    new: str | Path | Dataset,
    dataset: Dataset | None = None,
    *,
    new_clusters: Sequence[int] | str = (),
    training: Training | None = DEFAULT,
    quiet: bool = False,
) -> dict[str, Any]:
    """Adds new rows to a finished run.

    Args:
      workdir: directory of the run. It is only read.
      output: the new directory.
      new: the new rows, or what `predict` takes as input.
      dataset: the scored rows of the run; None loads them by its config.
      new_clusters: numbers of the groups of new rows that become clusters, or "all".
      training: how to go on with the training on all rows; None does not train.
      quiet: whether to print nothing while training.

    Returns:
      The content of the new result.json.

    Raises:
      UserError: the rows can't be read or are of another kind, there is no such group, `output` is not empty, or the
        run or its data can't be read.
      Diverged: a loss was not finite.
      Interrupted: a signal arrived while training; nothing is written.
    """
    check_new(output)
    before = read(workdir, dataset)
    rows = new if isinstance(new, Dataset) else added_rows(before, new)
    config = read_json(workdir / "config.json")
    describe.check({**before.predictor.config, "levels": ()})
    scored = _joined(before.predictor.config, output)
    both, began = _both(before, rows, scored), time.monotonic()
    first = (before.result.get("sizes") or [{"rows": both.old}])[0]["rows"]  # rows of no update
    accepted = _accepted(both.novel, new_clusters)
    with temporary(output) as directory:
        write_added(directory / ADDED, both.run.dataset, first)
        copy(workdir / "estimator.json", directory / "estimator.json")
        state, places = _with_groups(both, accepted)
        run, state = _trained(directory, {**config, "scored": scored}, both, state, places, training, quiet)
        facts = facts_of(both, run, state, list(places), accepted, rows.name)
        step = {"update": rows.name, "rows": rows.num_examples, "new_clusters": list(places)}
        state = state._replace(history=[*state.history, step | ({"retrain": training._asdict()} if training else {})])
        result = {**result_of(workdir, run, both, state, facts), "wall_time_seconds": time.monotonic() - began}
        run = run._replace(lines=lines_of(run, both), result=result)
        return write(directory, output, run, state, str(workdir), (ADDED,))


def _joined(config: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """The settings of the data source with all rows. Rows of earlier updates are among the added rows."""
    first = config["scored"] or config["data"]
    first = first["first"] if first.get("source") == "joined" else first
    return {
        "source": "joined",
        "first": first,
        "added": str(output.absolute() / ADDED),
        "split": first.get("split", ADDED),
    }


def _both(before: Finished, rows: Dataset, scored: Mapping[str, Any]) -> Both:
    old, everything = before.dataset.num_examples, joined_rows(before.dataset, rows._replace(split=scored["split"]))
    meta = {**before.predictor.meta, "config": {**before.predictor.config, "scored": dict(scored)}}
    predictor = Predictor.of(before.predictor.variables, meta, before.predictor.names, before.predictor.rule)
    embedding = np.concatenate([before.embedding, unit(predictor.embed(rows.features))])
    state = start(before)
    run = before._replace(predictor=predictor, dataset=everything, embedding=embedding)
    rule = Rule.of_run(run.result, state.to_json())
    probabilities, clusters = assigned(rule, predictor.model_proba(everything.features), run, state)
    confidence, settings = probabilities.max(1), predictor.config["rows"]
    novel = novelty(
        embedding[:old],
        probabilities[:old].argmax(1),
        embedding[old:],
        settings["neighbours"] or NEIGHBOURS,
        settings["limit"],
    )
    return Both(run, old, state, confidence, clusters, novel, low_confidence(confidence[:old], rule.threshold))


def _accepted(novel: Novelty, new_clusters: Sequence[int] | str) -> list[int]:
    """The numbers of the groups that become clusters."""
    there = list(range(novel.group.max(initial=-1) + 1))
    if new_clusters == ALL:
        return there
    unknown = [group for group in new_clusters if group not in there]
    if unknown:
        offered = f"the groups are {', '.join(map(str, there))}" if there else "the new rows form no group of their own"
        raise UserError(f"there is no group {unknown[0]} of new rows: {offered}")
    return sorted({int(group) for group in new_clusters})


def _with_groups(both: Both, accepted: Sequence[int]) -> tuple[State, dict[int, int]]:
    """The state with the accepted groups as clusters, and the output of the model from which each of them starts."""
    own, old = both.run.predictor.model_proba(both.run.dataset.features).argmax(1), both.old
    state, sources = both.state, dict[int, int]()
    for group in accepted:
        rows = old + np.flatnonzero(both.novel.group == group)
        centroid, (outputs, counts) = both.run.embedding[rows].mean(0), np.unique(own[rows], return_counts=True)
        sources[state.free] = int(outputs[counts.argmax()])
        before = {o: both.run.embedding[:old][own[:old] == o] for o in outputs.tolist()}
        # An output that no old row has is the new cluster alone: the opposite of its centroid is never nearer.
        state = with_parts(state, centroid, {o: x.mean(0) if len(x) else -centroid for o, x in before.items()})
    return state, sources


def _trained(
    directory: Path,
    config: Mapping[str, Any],
    both: Both,
    state: State,
    sources: Mapping[int, int],
    training: Training | None,
    quiet: bool,
) -> tuple[Finished, State]:
    """Goes on with the training. The clusters keep their numbers. Without training, only writes what there is."""
    run, ids = both.run, both.run.dataset.ids
    if training is None:
        run.predictor.save(directory / "checkpoints", 0)
        write_config(directory, config, run.predictor)
        return described(run, run.predictor, calibrate=False), state
    clusters = clusters_of(run, state)
    facts, _ = known(state, ids, clusters)
    places = [sources.get(c, s) for c, s in zip(facts.clusters, facts.sources.tolist(), strict=True)]
    unsure = np.zeros(len(ids), bool)
    unsure[both.old :] = (both.confidence[both.old :] < both.low) | both.novel.fits_none
    unsure &= ~np.isin(clusters, list(sources))
    facts = facts._replace(sources=np.array(places), pseudo=np.where(unsure, -1, facts.pseudo))
    run, state = trained(directory, config, run, state, clusters, facts, training, quiet=quiet)
    after = clusters_of(run, state)
    kept = renumbered(state, kept_numbers(state.clusters, clusters, after), state.free, {}, "")
    return run, kept._replace(history=state.history)


def kept_numbers(names: set[int], before: np.ndarray, after: np.ndarray) -> dict[int, int]:
    """The number of each cluster after training: that of the one with which it shares most rows, one to one.

    Args:
      names: the clusters.
      before: cluster of each row before, int [n].
      after: the same after training.
    """
    listed = sorted(names)
    shared = np.array([[((after == c) & (before == d)).sum() for d in listed] for c in listed])
    # Of equal matches, a cluster keeps its own number.
    row, column = linear_sum_assignment(-(2 * shared + np.eye(len(listed), dtype=int)))
    return {listed[i]: listed[j] for i, j in zip(row, column, strict=True)}
