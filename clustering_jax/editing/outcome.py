"""What an update finds: its part of result.json, a column of assignments.csv, and the lines in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clustering_jax.editing.drift import drift, sizes
from clustering_jax.editing.novelty import FAR, Novelty
from clustering_jax.editing.state import State
from clustering_jax.editing.workdir import Finished, clusters_of
from clustering_jax.inference.rows import medoids
from clustering_jax.inference.rule import numbers


class Both(NamedTuple):
    """Old and new rows.

    Attributes:
      run: the run with all rows, the old ones first.
      old: number of old rows.
      state: the clusters before the update.
      confidence: probability of the cluster of each row, [n].
      clusters: cluster of each row before the update, int [n].
      novel: how the new rows lie beside the old ones.
      low: confidence below which a row counts as one of low confidence.
    """

    run: Finished
    old: int
    state: State
    confidence: np.ndarray
    clusters: np.ndarray
    novel: Novelty
    low: float


def facts_of(
    both: Both, run: Finished, state: State, clusters: Sequence[int], accepted: Sequence[int], source: str
) -> dict[str, Any]:
    """What is said of this update in result.json."""
    old, novel, embedding = both.old, both.novel, both.run.embedding
    rank, ids = medoids(embedding[old:], novel.group), both.run.dataset.ids[old:]
    numbers_of = dict(zip(accepted, clusters, strict=True))
    groups = []
    for group in range(novel.group.max(initial=-1) + 1):
        own = novel.group == group
        typical = [ids[row] for r in (1, 2, 3) for row in np.flatnonzero(own & (rank == r))]
        near, counts = np.unique(both.clusters[old:][own], return_counts=True)
        groups.append(
            {
                "group": group,
                "rows": int(own.sum()),
                "typical": typical,
                "mostly_in": int(near[counts.argmax()]),
                "cluster": numbers_of.get(group),
            }
        )
    after = clusters_of(run, state)
    far = novel.new > novel.limit
    return {
        "source": source,
        "rows": {"old": old, "new": len(ids)},
        "fits_none": {"rows": int(novel.fits_none.sum()), "far": int(far.sum()), "limit": novel.limit, "expected": FAR},
        "groups": groups,
        "drift": drift(
            both.confidence[:old], both.confidence[old:], both.low, novel, (embedding[:old], embedding[old:])
        ),
        "changed": int((after[:old] != both.clusters[:old]).sum()),
    }


def result_of(workdir: Path, run: Finished, both: Both, state: State, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The content of result.json before `write`: without the scores of other rows, with the sizes over time."""
    before = run.result
    after, old = clusters_of(run, state), both.old
    first = {"date": _date(workdir / "result.json"), "sizes": sizes(both.clusters[:old], both.state.clusters)}
    over_time = before.get("sizes") or [{**first, "rows": old}]
    now = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "sizes": sizes(after, state.clusters)}
    rows = f"{both.run.dataset.name}: {old} examples, and {facts['rows']['new']} added"
    return {
        **before,
        "baselines": [],
        "protocol": {**before["protocol"], "trained_on": rows, "scored_on": rows},
        "updates": [*before.get("updates", []), dict(facts)],
        "sizes": [*over_time, {**now, "rows": len(after)}],
    }


def _date(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")


def lines_of(run: Finished, both: Both) -> list[dict[str, str]]:
    """The columns of each row, with the group of new rows that fit no cluster: -1 for a row that is alone."""
    group = np.full(len(run.lines), -2)
    group[both.old :] = np.where(both.novel.fits_none, both.novel.group, -2)
    return [{**line, "new_group": text} for line, text in zip(run.lines, numbers(group, -2), strict=True)]


def summary(result: Mapping[str, Any]) -> str:
    """What an update finds, for the terminal.

    Args:
      result: content of result.json after the update.
    """
    facts = result["updates"][-1]
    n, none, drifted = facts["rows"]["new"], facts["fits_none"], facts["drift"]
    low, shift, distance = drifted["low_confidence"], drifted["shift"], drifted["distance"]
    lines = [
        f"{n} new rows; {none['rows']} fit no cluster: {none['far']} are far from the old rows "
        f"({none['expected'] * n:.0f} expected), {sum(g['rows'] for g in facts['groups'])} form groups of their own",
        f"drift: {low['new']:.3f} of the new rows have low confidence, {low['old']:.3f} of the old ones; distance "
        f"to the nearest old rows {distance['new']:.3f}, before {distance['old']:.3f}; shift of the mean "
        f"{shift['value']:.3f}, by chance {shift['expected']:.3f}",
    ]
    for group in facts["groups"]:
        use = f"is cluster {group['cluster']}" if group["cluster"] is not None else "can be a new cluster"
        where = f"{group['rows']} rows, such as {', '.join(group['typical'])}, mostly in cluster {group['mostly_in']}"
        lines.append(f"group {group['group']} {use}: {where}")
    if any(group["cluster"] is None for group in facts["groups"]):
        lines.append("the same command with --new_clusters=all, or with some of these numbers, makes them clusters")
    return "\n".join([*lines, f"{facts['changed']} of {facts['rows']['old']} old rows changed their cluster"])
