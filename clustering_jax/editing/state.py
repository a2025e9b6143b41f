"""The clusters of a run as they are corrected, step by step, without files and without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from sklearn.cluster import KMeans

from clustering_jax.editing.request import Request
from clustering_jax.errors import UserError
from clustering_jax.inference.rule import Rule, nearest


class State(NamedTuple):
    """Everything that corrections have changed so far.

    Attributes:
      outputs: for each output of the model, the clusters of its parts, see `Rule`.
      centroids: centroids of these parts, for the outputs with several parts.
      moved: cluster of each row that was moved by hand, by the row's id.
      names: words of each cluster.
      locked: clusters that must not change.
      free: the smallest number that no cluster has ever had.
      history: the corrections so far, as JSON values.
    """

    outputs: tuple[tuple[int, ...], ...]
    centroids: dict[int, np.ndarray]
    moved: dict[str, int]
    names: dict[int, list[str]]
    locked: frozenset[int]
    free: int
    history: list[dict[str, Any]]

    @property
    def clusters(self) -> set[int]:
        """The numbers of all clusters."""
        return {cluster for parts in self.outputs for cluster in parts}

    def to_json(self) -> dict[str, Any]:
        """The content of edits.json, without the names, which clusters.json has."""
        return {
            "outputs": [list(parts) for parts in self.outputs],
            "centroids": {str(i): np.asarray(c, float).round(7).tolist() for i, c in self.centroids.items()},
            "moved": self.moved,
            "locked": sorted(self.locked),
            "free": self.free,
            "history": self.history,
        }


def start(k: int, names: Mapping[int, list[str]], edits: Mapping[str, Any] | None) -> State:
    """The state of a run.

    Args:
      k: number of outputs of its model.
      names: words of each cluster; a cluster may be missing.
      edits: content of edits.json, or None for a run without corrections.
    """
    if edits is None:
        return State(tuple((i,) for i in range(k)), {}, {}, dict(names), frozenset(), k, [])
    rule = Rule.of_run(None, edits)
    rest = edits["moved"], dict(names), frozenset(edits["locked"]), edits["free"], edits["history"]
    return State(rule.outputs, dict(rule.centroids), *rest)


def check(state: State, request: Request) -> None:
    """Checks corrections before anything is changed.

    Raises:
      UserError: they name a cluster that does not exist or is locked, or contradict each other.
    """
    groups = [cluster for group in request.merge for cluster in group]
    targets = [cluster for cluster in request.move.values() if cluster >= 0]
    known = state.clusters
    for cluster in [*groups, *request.split, *request.rename, *targets, *request.lock, *request.unlock]:
        if cluster not in known:
            raise UserError(f"there is no cluster {cluster}: the clusters are {', '.join(map(str, sorted(known)))}")
    twice = [cluster for cluster in groups if groups.count(cluster) > 1 or cluster in request.split]
    if twice:
        raise UserError(f"cluster {twice[0]} is merged or split twice: do it in two steps")
    if any(len(group) < 2 for group in request.merge):
        raise UserError("a merge names two clusters or more, for example 3,7")
    if any(parts < 2 for parts in request.split.values()):
        raise UserError("a split has two parts or more, for example 5:3")
    gone = {other: group[0] for group in request.merge for other in group[1:]}
    renamed = [cluster for cluster in (*request.rename, *request.lock) if cluster in gone]
    if renamed:
        raise UserError(f"cluster {renamed[0]} becomes part of {gone[renamed[0]]}: rename and lock that one")
    fixed = state.locked - set(request.unlock)
    changed = [cluster for cluster in [*groups, *request.split, *targets] if cluster in fixed]
    if changed:
        raise UserError(f"cluster {changed[0]} is locked: leave it out, or unlock it")


def applied(state: State, request: Request, members: Callable[[int], tuple[list[str], np.ndarray]]) -> State:
    """Applies corrections, which must have passed `check`.

    Args:
      state: the state before.
      request: the corrections.
      members: the ids of the m rows of a cluster after the moves, and their embedding [m, d], rows of norm 1.

    Returns:
      The new state.

    Raises:
      UserError: a cluster has fewer different rows than it is to have parts.
    """
    state = state._replace(moved={**state.moved, **request.move}, history=[*state.history, request.to_json()])
    for cluster, parts in request.split.items():
        ids, rows = members(cluster)
        centroids, first = _centroids(rows, parts, cluster), state.free
        state = _split(state, cluster, centroids)
        numbers = [cluster, *range(first, state.free)]
        places = zip(ids, nearest(rows, centroids), strict=True)
        moved = {row: numbers[part] for row, part in places if row in state.moved}
        state = state._replace(moved={**state.moved, **moved})
    for group in request.merge:
        state = _merged(state, list(group))
    names = {**state.names, **{cluster: [name] for cluster, name in request.rename.items()}}
    return state._replace(names=names, locked=(state.locked - set(request.unlock)) | set(request.lock))


def _centroids(rows: np.ndarray, parts: int, cluster: int) -> np.ndarray:
    """Centroids [parts, d] by k-means, that of the largest part first."""
    if len(np.unique(rows, axis=0)) < parts:
        raise UserError(f"cluster {cluster} can't be split into {parts} parts: it has too few different rows")
    found = KMeans(parts, n_init=10, random_state=0).fit(rows)
    return found.cluster_centers_[np.argsort(-np.bincount(found.labels_, minlength=parts), kind="stable")]


def _split(state: State, cluster: int, centroids: np.ndarray) -> State:
    new = (cluster, *range(state.free, state.free + len(centroids) - 1))
    outputs, places = list(state.outputs), dict(state.centroids)
    for i, parts in enumerate(state.outputs):
        if cluster not in parts:
            continue
        kept = [j for j, part in enumerate(parts) if part != cluster]  # empty where the output had no parts
        outputs[i] = (*(parts[j] for j in kept), *new)
        places[i] = np.concatenate([places[i][kept], centroids]) if kept else centroids
    return state._replace(outputs=tuple(outputs), centroids=places, free=state.free + len(centroids) - 1)


def with_parts(state: State, centroid: np.ndarray, places: Mapping[int, np.ndarray]) -> State:
    """The state with one more cluster, a part of some outputs. Its number is ``state.free`` of the state before.

    Args:
      state: the state before.
      centroid: centroid of the new cluster, [d].
      places: centroid of the rows that each of these outputs had before, by the output.
    """
    outputs, centroids = list(state.outputs), dict(state.centroids)
    for output, place in places.items():
        outputs[output] = (*outputs[output], state.free)
        centroids[output] = np.concatenate([centroids.get(output, place[None]), centroid[None]])
    return state._replace(outputs=tuple(outputs), centroids=centroids, free=state.free + 1)


def _merged(state: State, group: list[int]) -> State:
    to = {cluster: group[0] if cluster in group else cluster for cluster in state.clusters}
    outputs = [tuple(to[cluster] for cluster in parts) for parts in state.outputs]
    single = [len(set(parts)) == 1 for parts in outputs]
    words = list(dict.fromkeys(word for cluster in group for word in state.names.get(cluster, [])))
    return state._replace(
        outputs=tuple(parts[:1] if one else parts for parts, one in zip(outputs, single, strict=True)),
        centroids={i: c for i, c in state.centroids.items() if not single[i]},
        moved={row: to.get(cluster, cluster) for row, cluster in state.moved.items()},
        names={**{c: n for c, n in state.names.items() if c not in group}, group[0]: words},
    )
