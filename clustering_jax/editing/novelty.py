"""New rows beside old ones: which fit no cluster, and which form groups of their own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.cluster import AgglomerativeClustering
from sklearn.neighbors import NearestNeighbors

# Share of old rows that are at least as far from the others as a row that fits no cluster.
FAR = 0.01
# Most rows whose groups are novel by their distances to each other; more rows are drawn at random.
MOST = 4000


class Novelty(NamedTuple):
    """How new rows lie beside old ones. Distances are mean cosine distances to the nearest rows.

    Attributes:
      old: distance of each old row that was compared to the other old rows, [m].
      new: distance of each new row to the old rows, [n].
      limit: the distance from which a row is far.
      group: group of each new row, int [n], numbered from 0 in the order of their sizes; -1 for none.
    """

    old: np.ndarray
    new: np.ndarray
    limit: float
    group: np.ndarray

    @property
    def fits_none(self) -> np.ndarray:
        """Whether each new row fits no cluster: it is far from the old rows, or in a group of its own."""
        return (self.new > self.limit) | (self.group >= 0)


def novelty(old: np.ndarray, clusters: np.ndarray, new: np.ndarray, neighbours: int, most: int) -> Novelty:
    """Compares new rows with old ones.

    Args:
      old: old rows [m, d] of norm 1.
      clusters: cluster of each of them, int [m]; -1 for none.
      new: new rows [n, d] of norm 1.
      neighbours: number of nearest rows that a row is compared with.
      most: of more old rows than this, so many are drawn at random.
    """
    rng = np.random.default_rng(0)
    if len(old) > most:
        drawn = np.sort(rng.choice(len(old), most, replace=False))
        old, clusters = old[drawn], clusters[drawn]
    k = min(neighbours, len(old) - 1)
    old_distance, new_distance = _within(old, k), _to(new, old, k)
    own = _nearer_to_each_other(new, new_distance, len(old), neighbours, rng)
    return Novelty(
        old_distance,
        new_distance,
        float(np.quantile(old_distance, 1 - FAR)),
        _groups(old, clusters, new, own, neighbours + 1, rng),
    )


def _within(rows: np.ndarray, k: int) -> np.ndarray:
    """Mean cosine distance of each row to its k nearest others."""
    return _half_squares(NearestNeighbors(n_neighbors=k, algorithm="brute").fit(rows).kneighbors()[0])


def _to(rows: np.ndarray, others: np.ndarray, k: int) -> np.ndarray:
    """Mean cosine distance of each row to the k nearest of `others`."""
    return _half_squares(NearestNeighbors(n_neighbors=k, algorithm="brute").fit(others).kneighbors(rows)[0])


def _half_squares(distances: np.ndarray) -> np.ndarray:
    # For rows of norm 1, half of the squared distance is the cosine distance.
    return (distances**2).mean(1) / 2


def _nearer_to_each_other(
    new: np.ndarray, distance: np.ndarray, old: int, neighbours: int, rng: np.random.Generator
) -> np.ndarray:
    """Whether each new row is nearer to other new rows than to the old ones, bool [n].

    The more rows there are, the nearer are the nearest. So the new rows are compared in parts of a quarter of the old
    rows, in which rows of the old kinds are far less dense than the old rows are.
    """
    result = np.zeros(len(new), bool)
    size = max(old // 4, 4 * neighbours)
    for part in np.array_split(rng.permutation(len(new)), -(-len(new) // size)):
        if len(part) > neighbours:
            result[part] = _within(new[part], neighbours) < distance[part]
    return result


def _groups(
    old: np.ndarray, clusters: np.ndarray, new: np.ndarray, own: np.ndarray, least: int, rng: np.random.Generator
) -> np.ndarray:
    """Groups of new rows that are nearer to each other than to the old rows, as fine as the old clusters are.

    Args:
      old: old rows [m, d] of norm 1.
      clusters: cluster of each of them, int [m].
      new: new rows [n, d] of norm 1.
      own: whether each new row is nearer to other new rows, [n].
      least: least rows of a group.
      rng: draws rows where there are many.
    """
    group, rows = np.full(len(new), -1), np.flatnonzero(own)
    centres = np.stack([old[clusters == c].mean(0) for c in np.unique(clusters[clusters >= 0])])
    if len(rows) < least or len(centres) < 2:
        return group
    some = rows if len(rows) <= MOST else np.sort(rng.choice(rows, MOST, replace=False))
    linked = AgglomerativeClustering(
        None, metric="cosine", linkage="average", distance_threshold=_width(old, clusters, centres)
    ).fit_predict(new[some])
    labels = np.flatnonzero(np.bincount(linked) >= least * len(some) / len(rows))
    if not len(labels):
        return group
    means = np.stack([new[some[linked == label]].mean(0) for label in labels])
    group[rows] = (new[rows] @ means.T).argmax(1)
    if len(some) == len(rows):
        group[rows[~np.isin(linked, labels)]] = -1
    return _numbered(_kept(old, centres, new, own, means, group), least)


def _width(old: np.ndarray, clusters: np.ndarray, centres: np.ndarray) -> float:
    """The distance from which two groups are two: between that of rows of one old cluster and that of two clusters."""
    between = 1 - centres @ centres.T  # the mean cosine distance of the rows of two clusters
    within = np.diag(between).copy()
    np.fill_diagonal(between, np.inf)
    return float(max((within.mean() + between.min(1).mean()) / 2, 1e-6))


def _kept(
    old: np.ndarray, centres: np.ndarray, new: np.ndarray, own: np.ndarray, means: np.ndarray, group: np.ndarray
) -> np.ndarray:
    """The groups without those that lie among rows of the old kinds, which most rows around their centres are."""
    places = np.concatenate([means, centres])
    near_new, near_old = ((rows @ places.T).argmax(1) for rows in (new, old))
    good = [
        2 * (own & (near_new == g)).sum() > (near_new == g).sum() + (near_old == g).sum() for g in range(len(means))
    ]
    return np.where((group >= 0) & np.append(good, False)[group], group, -1)


def _numbered(group: np.ndarray, least: int) -> np.ndarray:
    """Groups of at least `least` rows, numbered from 0 by their sizes."""
    sizes = np.bincount(group[group >= 0], minlength=1)
    order = [g for g in np.argsort(-sizes, kind="stable").tolist() if sizes[g] >= least]
    number = np.full(len(sizes) + 1, -1)
    number[order] = np.arange(len(order))
    return number[group]
