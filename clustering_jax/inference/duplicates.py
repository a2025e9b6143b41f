"""Groups of near-duplicates: rows that are equal, or far nearer to each other than to the other rows around them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from clustering_jax.data.images.streaming import LazyArray
from clustering_jax.inference.rows import blocks

# The neighbour whose distance is the scale around a row. So many rows can be near-duplicates of each other.
SCALE = 5
# Largest share of the rows, without duplicates, that should be as near to their nearest row by chance.
CHANCE = 0.01
# The neighbours are found by cosines in float32, which do not order smaller distances than this.
RESOLVED = 2e-3


def duplicate_groups(rows: np.ndarray, neighbours: np.ndarray, share: float, first: np.ndarray) -> np.ndarray:
    """Groups of near-duplicates: rows that are linked, directly or through others.

    Two rows are linked if they are equal, or if their distance is at most `share` of the distance of either of them to
    its fifth neighbour. In an embedding of few dimensions many rows lie that near by chance, so that a smaller share is
    used there, see `smaller_share`.

    Args:
      rows: [n, d] of norm 1.
      neighbours: row numbers of the nearest rows, the nearest first, int [n, k].
      share: largest distance of two near-duplicates, in [0, 1); 0 links equal rows alone.
      first: the first row that is equal to each row, int [n].

    Returns:
      int [n]: the group of each row, numbered from 0 in the order of their first rows; -1 for a row without duplicates.
    """
    near = neighbours[:, :SCALE]
    apart = distances(rows, near)
    scale = np.where(apart[:, -1] >= RESOLVED, apart[:, -1], 0)
    limit = smaller_share(apart, share) * np.minimum(scale[:, None], scale[near])
    row, column = np.nonzero(apart <= limit)
    linked = (np.append(row, np.arange(len(rows))), np.append(near[row, column], first))
    graph = sp.coo_array((np.ones(len(linked[0]), bool), linked), (len(rows), len(rows)))
    return _numbered(connected_components(graph, directed=False)[1])


def distances(rows: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Distances of each row to its neighbours, float32 [n, k], which are exact for equal rows.

    Args:
      rows: [n, d].
      neighbours: row numbers, int [n, k].
    """
    result = np.empty(neighbours.shape, np.float32)
    for part in blocks(len(rows), neighbours.shape[1] * rows.shape[1]):
        result[part] = np.linalg.norm(rows[neighbours[part]] - rows[part, None], axis=2)
    return result


def smaller_share(apart: np.ndarray, share: float) -> float:
    """The share, or a smaller one with which about CHANCE of rows without duplicates still have a near-duplicate.

    Where points are spread evenly in m dimensions, each of the k - 1 nearer neighbours is nearer than r times the
    distance of neighbour k with the chance r^m. Minus the logarithm of this ratio has the median log(2) / m, which
    gives m.

    Args:
      apart: distances to the nearest rows, in ascending order, [n, k].
      share: the share, in [0, 1].
    """
    others = apart.shape[1] - 1
    pairs = (apart[:, :-1] > 0) & (apart[:, -1:] > 0)
    if not pairs.any():
        return share
    ratios = np.broadcast_to(apart[:, -1:], pairs.shape)[pairs] / apart[:, :-1][pairs]
    # r^m = CHANCE / (k - 1), with 1 / m from the median
    return min(share, float(np.exp(np.log(CHANCE / others) * np.median(np.log(ratios)) / np.log(2))))


def first_equal(features: Mapping[str, Any], n: int) -> np.ndarray:
    """The first row that has the same features as each row, int [n].

    Args:
      features: arrays [n, ...] by name. Rows that are read from storage are not compared: each is its own first row.
      n: number of rows.
    """
    if any(isinstance(values, LazyArray) for values in features.values()):
        return np.arange(n)
    seen: dict[bytes, int] = {}
    arrays = [np.asarray(values) for values in features.values()]
    return np.array([seen.setdefault(_digest(arrays, row), row) for row in range(n)])


def _digest(arrays: Sequence[np.ndarray], row: int) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for values in arrays:
        digest.update(values[row].tobytes())
    return digest.digest()


def _numbered(component: np.ndarray) -> np.ndarray:
    """Components of several rows, numbered in the order of their first rows; -1 for those of one row."""
    _, first, inverse, counts = np.unique(component, return_index=True, return_inverse=True, return_counts=True)
    several = counts > 1
    number = np.full(len(first), -1)
    number[np.flatnonzero(several)[np.argsort(first[several])]] = np.arange(several.sum())
    return number[inverse]
