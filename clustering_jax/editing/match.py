"""Gives the clusters of a run the numbers and names of an older run."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from clustering_jax.editing.state import State
from clustering_jax.errors import UserError
from clustering_jax.files import read_json
from clustering_jax.inference.rule import EDITS


class Old(NamedTuple):
    """The clusters of an older run.

    Attributes:
      clusters: cluster of each row, by the row's id.
      names: words of each cluster; a cluster may be missing.
      free: the smallest number that no cluster has ever had.
    """

    clusters: dict[str, int]
    names: dict[int, list[str]]
    free: int


def read_old(workdir: Path) -> Old:
    """Reads the clusters of a finished run.

    Args:
      workdir: directory of the run.

    Raises:
      UserError: the run has not finished.
    """
    if read_json(workdir / "result.json") is None:
        raise UserError(f"--match={workdir} holds no finished run")
    with (workdir / "assignments.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        clusters = {line["id"]: int(line["cluster"]) for line in csv.DictReader(file)}
    entries = read_json(workdir / "clusters.json") or []
    free = (read_json(workdir / EDITS) or {}).get("free", 0)
    names = {entry["cluster"]: entry["names"] for entry in entries if entry["names"]}
    return Old(clusters, names, max(free, 1 + max(clusters.values()), len(entries)))


def new_numbers(known: Sequence[int], ids: Sequence[str], clusters: np.ndarray, old: Old) -> tuple[dict[int, int], int]:
    """The number of each cluster: that of the old cluster with which it shares most rows, one to one.

    Args:
      known: all clusters of the new run.
      ids: ids of its n rows.
      clusters: cluster of each row, int [n].
      old: the older run.

    Returns:
      ``(new number of each cluster, the smallest number that is free after that)``. A cluster that shares no row with
      its match gets a number that no old cluster has had.

    Raises:
      UserError: the runs have no row in common.
    """
    columns = sorted(set(old.clusters.values()) - {-1})
    table = np.zeros((len(known), len(columns)), int)
    pairs = [(cluster, old.clusters.get(row, -1)) for row, cluster in zip(ids, clusters.tolist(), strict=True)]
    for ours, theirs in pairs:
        if ours >= 0 and theirs >= 0:
            table[list(known).index(ours), columns.index(theirs)] += 1
    if not table.any():
        raise UserError("the two runs have no row in common: rows are compared by the ids of assignments.csv")
    matched = {known[i]: columns[j] for i, j in zip(*linear_sum_assignment(-table), strict=True) if table[i, j]}
    rest = [cluster for cluster in known if cluster not in matched]
    return matched | {cluster: old.free + i for i, cluster in enumerate(rest)}, old.free + len(rest)


def renumbered(state: State, to: Mapping[int, int], free: int, names: Mapping[int, list[str]], origin: str) -> State:
    """The state with other numbers. A cluster without a name takes that of the old cluster.

    Args:
      state: the state before.
      to: new number of each cluster.
      free: the smallest number that is free after that.
      names: words of the old clusters.
      origin: the old run, for the history.
    """
    own = {to[cluster]: words for cluster, words in state.names.items() if words and cluster in to}
    taken = set(to.values())
    return state._replace(
        outputs=tuple(tuple(to[cluster] for cluster in parts) for parts in state.outputs),
        moved={row: to.get(cluster, cluster) for row, cluster in state.moved.items()},
        names={**{cluster: words for cluster, words in names.items() if cluster in taken}, **own},
        locked=frozenset(to[cluster] for cluster in state.locked),
        free=free,
        history=[*state.history, {"match": origin}],
    )
