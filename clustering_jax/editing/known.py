"""What is known of the rows of a run when it is trained on corrections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from clustering_jax.editing.state import State
from clustering_jax.errors import UserError

Spread = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Known(NamedTuple):
    """What is known of the rows. Targets are positions in `clusters`.

    Attributes:
      clusters: the numbers of the clusters, one for each output of the model that is trained, ascending.
      sources: the output of the old model from which each output starts, int [k].
      pseudo: target of each row, int [n]; -1 where nothing is known.
      rows: row numbers that were moved by hand or have a label, int [m].
      targets: their targets, int [m].
      pairs: row numbers of pairs, int [p, 2].
      links: 1 for a pair of the same cluster, 0 for one of different clusters, int [p].
    """

    clusters: list[int]
    sources: np.ndarray
    pseudo: np.ndarray
    rows: np.ndarray
    targets: np.ndarray
    pairs: np.ndarray
    links: np.ndarray


def _unchanged(targets: np.ndarray, rows: np.ndarray, known_targets: np.ndarray) -> np.ndarray:
    return targets


def known(
    state: State,
    ids: Sequence[str],
    clusters: np.ndarray,
    labels: Mapping[str, str] = MappingProxyType({}),
    pairs: Sequence[tuple[str, str, int]] = (),
    spread: Spread = _unchanged,
) -> tuple[Known, dict[str, int]]:
    """Collects what is known.

    A class is matched to one cluster, so that as many labelled rows as possible lie in theirs. The labels then spread
    to the other rows, but not to the rows of locked clusters.

    Args:
      state: the clusters after all corrections.
      ids: ids of the n rows.
      clusters: cluster of each row, int [n]; -1 for none.
      labels: class of a few rows, by id.
      pairs: ``(id, id, 1)`` for rows of the same cluster, ``(id, id, 0)`` for rows of different ones.
      spread: ``(targets int [n], labelled rows int [m], their targets int [m]) -> targets int [n]``. It is called only
        if there are labels.

    Returns:
      ``(known, cluster of each class)``.

    Raises:
      UserError: a row does not exist, or there are more classes than clusters.
    """
    names, position = sorted(state.clusters), {row: i for i, row in enumerate(ids)}
    unknown = [row for row in (*labels, *(row for a, b, _ in pairs for row in (a, b))) if row not in position]
    if unknown:
        raise UserError(f"there is no row '{unknown[0]}': ids are those of assignments.csv")
    target = {cluster: i for i, cluster in enumerate(names)}
    pseudo = np.array([target.get(cluster, -1) for cluster in clusters.tolist()])
    matched = matched_classes({position[row]: label for row, label in labels.items()}, pseudo, len(names))
    own = {position[row]: matched[label] for row, label in labels.items()}
    if own:
        fixed = np.isin(pseudo, [-1, *(target[cluster] for cluster in state.locked)])
        pseudo = np.where(fixed, pseudo, spread(pseudo, np.array(list(own)), np.array(list(own.values()))))
    touched = {position[row]: target.get(cluster, -1) for row, cluster in state.moved.items()} | own
    rows = np.array(sorted(row for row, t in touched.items() if t >= 0), int)
    sources = [next(i for i, parts in enumerate(state.outputs) if cluster in parts) for cluster in names]
    return Known(
        names,
        np.array(sources),
        pseudo,
        rows,
        np.array([touched[row] for row in rows.tolist()], int),
        np.array([[position[a], position[b]] for a, b, _ in pairs], int).reshape(-1, 2),
        np.array([link for _, _, link in pairs], int),
    ), {label: names[column] for label, column in matched.items()}


def matched_classes(labels: Mapping[int, str], pseudo: np.ndarray, k: int) -> dict[str, int]:
    """The target of each class, one to one, such that as many labelled rows as possible lie in theirs.

    Args:
      labels: class of a few rows, by row number.
      pseudo: target of each row, int [n], -1 for none.
      k: number of targets.

    Raises:
      UserError: there are more classes than targets.
    """
    classes = sorted(set(labels.values()))
    if len(classes) > k:
        raise UserError(f"the labels have {len(classes)} classes, but there are {k} clusters: split some of them first")
    table = np.zeros((len(classes), k))
    for row, label in labels.items():
        if pseudo[row] >= 0:
            table[classes.index(label), pseudo[row]] += 1
    return {classes[i]: int(j) for i, j in zip(*linear_sum_assignment(-table), strict=True)}
