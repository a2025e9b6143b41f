"""The rows and the clusters of a run as JSON values, which the page's script reads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import numpy as np

from clustering_jax.report.assigned import Assigned
from clustering_jax.report.content import Content, clusters_of, sample
from clustering_jax.report.layout import Points, separated
from clustering_jax.report.thumbnails import encoded

MOST = 50_000  # largest number of rows in the page
KEPT = 24  # rows at the top of each tab of a cluster that the page always has
NUMBERED = 40  # largest number of clusters that have a number on the map
SCALE = 10_000  # coordinates of the map are whole numbers from 0 to this
MAP = (720.0, 480.0)  # size of the map for which its numbers are kept apart


def of_content(content: Content, assigned: Assigned, points: Points | None, facts: Mapping[int, str]) -> dict[str, Any]:
    """Everything that the page's script needs.

    Args:
      content: the content of the report.
      assigned: its assignments.
      points: the map, or None.
      facts: a line of text on each cluster.

    Returns:
      JSON values: "rows" has one list for each property, "clusters" one object for each cluster.
    """
    order = by_interest(assigned)
    rows = _shown(assigned, order, points)
    places = np.full((len(assigned.ids), 2), -1)
    labels: list[list[int]] = []
    if points:
        places[points.rows] = _scaled(points.places)
        labels = _labels(places[points.rows], assigned.clusters[points.rows])
    return {
        "name": content.name,
        "editable": content.finished,
        "map": points is not None,
        "unassigned": facts.get(-1, ""),
        "clusters": [_cluster(content, assigned, i, facts) for i in clusters_of(content)],
        "rows": {**_columns(assigned, rows), "x": places[rows, 0].tolist(), "y": places[rows, 1].tolist()},
        "labels": labels,
        **_pictures(content, rows, order),
    }


def by_interest(assigned: Assigned) -> np.ndarray:
    """All rows, int [n]: those first that are at the top of a tab of their cluster."""
    best = np.full(len(assigned.ids), len(assigned.ids))
    for order in _tabs(assigned):
        clusters = assigned.clusters[order]
        grouped = order[np.argsort(clusters, kind="stable")]
        _, first = np.unique(clusters[np.argsort(clusters, kind="stable")], return_index=True)
        starts = np.repeat(first, np.diff(np.append(first, len(grouped))))
        best[grouped] = np.minimum(best[grouped], np.arange(len(grouped)) - starts)
    return np.argsort(best, kind="stable")


def _tabs(assigned: Assigned) -> Iterator[np.ndarray]:
    """The rows in the order of each tab; a tab may lack rows."""
    typical, outlier, group = (assigned.columns.get(name) for name in ("typical", "outlier", "duplicate_group"))
    first = np.zeros(len(assigned.ids)) if typical is None else np.where(np.isnan(typical), 9, typical)
    yield np.lexsort((-assigned.confidence, first))
    yield np.argsort(assigned.confidence, kind="stable")
    if outlier is not None:
        yield np.argsort(-outlier, kind="stable")
    if group is not None:
        order = np.argsort(group, kind="stable")
        yield order[~np.isnan(group[order])]


def _shown(assigned: Assigned, order: np.ndarray, points: Points | None) -> np.ndarray:
    """The rows of the page: all of them, or the most interesting ones and some at random."""
    n = len(assigned.ids)
    if n <= MOST:
        return np.arange(n)
    first = order[: min(4 * KEPT * assigned.k, MOST // 2)]
    others = np.setdiff1d(points.rows if points else sample(n, MOST), first)
    return np.sort(np.append(first, others[sample(len(others), MOST - len(first))]))


def _columns(assigned: Assigned, rows: np.ndarray) -> dict[str, list[Any]]:
    columns = {
        "id": [assigned.ids[row] for row in rows.tolist()],
        "cluster": assigned.clusters[rows].tolist(),
        "probability": np.round(assigned.confidence[rows].astype(float), 3).tolist(),
    }
    names = ("second", "second_probability", "outlier", "duplicate_group", "typical")
    for name in (name for name in names if name in assigned.columns):
        values = assigned.columns[name][rows]
        columns[name] = [None if v != v else round(v, 3) if v % 1 else int(v) for v in values.tolist()]
    return columns


def _scaled(places: np.ndarray) -> np.ndarray:
    low, high = places.min(0), places.max(0)
    return np.round((places - low) / np.where(high > low, high - low, 1) * SCALE).astype(int)


def _labels(places: np.ndarray, clusters: np.ndarray) -> list[list[int]]:
    """``[cluster, x, y]`` of the numbers on the map: at the median of each cluster, but apart from each other."""
    present, sizes = np.unique(clusters[clusters >= 0], return_counts=True)
    largest = present[np.argsort(-sizes, kind="stable")[:NUMBERED]].tolist()
    if not largest:
        return []
    medians = np.stack([np.median(places[clusters == cluster], 0) for cluster in largest])
    size = np.array(MAP)
    apart = separated(medians / SCALE * size, MAP, 11.0 + 5 * len(str(max(largest)))) / size * SCALE
    return [[cluster, *map(round, place)] for cluster, place in zip(largest, apart.tolist(), strict=True)]


def _cluster(content: Content, assigned: Assigned, cluster: int, facts: Mapping[int, str]) -> dict[str, Any]:
    return {
        "number": cluster,
        "size": int((assigned.clusters == cluster).sum()),
        "facts": facts.get(cluster, ""),
        "words": content.names[cluster] if cluster < len(content.names) else [],
        "locked": cluster in content.locked,
    }


def _pictures(content: Content, rows: np.ndarray, order: np.ndarray) -> dict[str, Any]:
    """The thumbnails of the shown rows, and the address of the files, which is relative to the page."""
    if content.pictures is None:
        return {}
    shown = order[np.isin(order, rows)].tolist()
    thumbnails = encoded(content.pictures, shown)
    start = quote(os.path.relpath(content.folder, content.workdir.resolve())) + "/" if content.folder else ""
    return {
        "pictures": [thumbnails.rest.get(row, "") for row in rows.tolist()],
        "picture_start": thumbnails.start,
        "sharp": thumbnails.sharp,
        "files": start,
    }
