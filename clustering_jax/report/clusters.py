"""The report's section on clusters: sizes, matching with the classes, a map, and the members of each cluster."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from sklearn.metrics import silhouette_samples
from sklearn.metrics.cluster import contingency_matrix

from clustering_jax import metrics
from clustering_jax.report.charts import NUMBERED, bars, confusion, scatter
from clustering_jax.report.content import Assigned, Content
from clustering_jax.report.layout import MAPS, flat
from clustering_jax.report.markup import Html, element
from clustering_jax.report.montage import members, sprite

MAX_CLASSES = 30  # rows and columns of the confusion matrix
MAX_CARDS = 100
MAX_IDS = 3  # ids of the most and of the least confident members on a card


def clusters(content: Content, kind: str) -> list[Html]:
    """The sections on clusters.

    Args:
      content: the content of the report.
      kind: kind of the map, see `layout.MAPS`.

    Returns:
      The sections; none if the run has no assignments yet.
    """
    assigned = content.assigned
    if assigned is None:
        return []
    labelled, matched = _labelled(content, assigned), {}
    silhouettes, silhouette_chart = _silhouettes(content, assigned)
    charts = [_sizes(assigned), *silhouette_chart]
    if labelled is not None:
        true, predicted = labelled
        matched = metrics.match(true, predicted)
        charts.append(_confusion(true, predicted, matched))
    charts += _map(content, assigned, kind)
    shown, k = _largest(assigned), assigned.k
    subset = f"The {len(shown)} largest of {k} clusters are shown, without empty ones. " if len(shown) < k else ""
    cards = [_card(content, assigned, i, matched, silhouettes) for i in shown]
    return [
        element("h2", "Clusters"),
        element("div", *charts, class_="charts"),
        element("h2", "Members"),
        element("p", subset + _legend(content), class_="note"),
        element("div", *cards, class_="grid"),
    ]


def _labelled(content: Content, assigned: Assigned) -> tuple[np.ndarray, np.ndarray] | None:
    """``(classes, clusters)`` of the rows that have a label and a cluster; None if there are none."""
    labels = content.dataset.labels if content.dataset else None
    known = labels is not None and (labels >= 0) & (assigned.clusters >= 0)
    if labels is None or not np.any(known):
        return None
    return labels[known], assigned.clusters[known]


def _sizes(assigned: Assigned) -> Html:
    sizes = _cluster_sizes(assigned)
    n, without = int(sizes.sum()), int((assigned.clusters < 0).sum())
    occupied = f"{int((sizes > 0).sum())} of {assigned.k} clusters are occupied"
    rejected = f"; {without:,} rows of low confidence have no cluster" if without else ""
    note = f"{occupied}; {n:,} members{rejected}; dashed line: the mean size, {n / assigned.k:,.0f}."
    return bars(sizes.tolist(), title="Cluster sizes", x_label="cluster", level=n / assigned.k, note=note)


def _cluster_sizes(assigned: Assigned) -> np.ndarray:
    """Number of rows of each cluster, without the rows that have none."""
    return metrics.cluster_sizes(assigned.clusters[assigned.clusters >= 0], assigned.k)


def _confusion(true: np.ndarray, predicted: np.ndarray, matched: dict[int, int]) -> Html:
    """The confusion matrix: each class in its order, with its matched cluster on the diagonal.

    Unmatched clusters follow. If there are too many, only the largest classes and clusters are shown.
    """
    counts = contingency_matrix(true, predicted)
    classes, present = np.unique(true), np.unique(predicted)
    largest_classes, largest_clusters = (np.argsort(-counts.sum(axis), kind="stable") for axis in (1, 0))
    rows = np.sort(largest_classes[:MAX_CLASSES])
    cluster_of = {label: cluster for cluster, label in matched.items()}
    columns = [np.searchsorted(present, cluster_of[c]) for c in classes[rows].tolist() if c in cluster_of]
    unmatched = [c for c in largest_clusters if present[c] not in matched]
    columns += unmatched[: MAX_CLASSES - len(columns)]
    note = "Shade: share of the class. The clusters are in the order of the classes that they match one to one."
    if len(classes) > len(rows) or len(present) > len(columns):
        note += f" {len(rows)} of {len(classes)} classes and {len(columns)} of {len(present)} clusters are shown."
    names, title = (classes[rows].tolist(), present[columns].tolist()), "Classes and clusters after matching"
    return confusion(counts[np.ix_(rows, columns)], counts.sum(1)[rows], *names, title=title, note=note)


class _Embedded(NamedTuple):
    """The members whose embedding is known: points [m, d], their clusters [m], and a phrase that describes them."""

    points: np.ndarray
    clusters: np.ndarray
    phrase: str


def _embedded(content: Content, assigned: Assigned) -> _Embedded | None:
    """The embedded members; None if there are too few for a map."""
    if content.rows is None or content.embedding is None:
        return None
    clusters = assigned.clusters[content.rows]
    points, clusters = content.embedding[clusters >= 0], clusters[clusters >= 0]
    m, n = len(points), int((assigned.clusters >= 0).sum())
    phrase = f"all {m:,} members" if m == n else f"{m:,} members, drawn at random"
    return None if m < 4 else _Embedded(points, clusters, phrase)


def _map(content: Content, assigned: Assigned, kind: str) -> list[Html]:
    embedded = _embedded(content, assigned)
    if embedded is None:
        return []
    note = f"{MAPS[kind]} of the embedding of {embedded.phrase}. Each number is at the median of its cluster."
    if len(np.unique(embedded.clusters)) > NUMBERED:
        note += f" Only the {NUMBERED} largest clusters have a number."
    return [scatter(flat(embedded.points, kind), embedded.clusters, title="Map of the embedding", note=note)]


def _silhouettes(content: Content, assigned: Assigned) -> tuple[dict[int, float], list[Html]]:
    """The mean silhouette of each cluster among the embedded members, and its chart; empty if it is undefined."""
    embedded = _embedded(content, assigned)
    if embedded is None:
        return {}, []
    points, own = np.asarray(embedded.points, np.float64), embedded.clusters
    mean = metrics.silhouette(points, own, sample=len(points))
    if math.isnan(mean):
        return {}, []
    values = silhouette_samples(points, own)
    means = {c: float(values[own == c].mean()) for c in np.unique(own).tolist()}
    heights = [round(means.get(i, math.nan), 2) for i in range(assigned.k)]
    note = (
        f"Computed in the embedding of {embedded.phrase}: how much closer a member is to its own cluster than to the "
        "nearest other cluster, from -1 to 1."
    )
    return means, [bars(heights, title=f"Silhouette, mean {mean:.3f}", x_label="cluster", level=mean, note=note)]


def _largest(assigned: Assigned) -> list[int]:
    """The largest clusters that are not empty, in ascending order of their numbers."""
    sizes = _cluster_sizes(assigned)
    return sorted(i for i in np.argsort(-sizes, kind="stable")[:MAX_CARDS].tolist() if sizes[i])


def _has_images(content: Content) -> bool:
    return content.dataset is not None and content.pictures is not None


def _legend(content: Content) -> str:
    if _has_images(content):
        return (
            "Upper row: the most confident members. Lower row: the least confident members. "
            "Both rows are in descending order of confidence."
        )
    if content.dataset is None:
        return "The data is not available, so members are not shown."
    return "Each member is shown by its id, with the probability of its cluster."


def _card(
    content: Content, assigned: Assigned, cluster: int, matched: dict[int, int], silhouettes: dict[int, float]
) -> Html:
    clusters, confidence, _ = assigned
    own = clusters == cluster
    facts = [f"{int(own.sum()):,} members, mean confidence {confidence[own].mean():.3f}"]
    if cluster in silhouettes:
        facts.append(f"silhouette {silhouettes[cluster]:.3f}")
    if cluster in matched:
        facts.append(f"matches class {matched[cluster]}")
    parts = [element("h3", f"Cluster {cluster}"), element("p", ", ".join(facts), class_="note")]
    words = content.names[cluster] if content.names else []
    parts += [element("p", *(element("span", word, class_="word") for word in words))] if words else []
    return element("section", *parts, *_members(content, assigned, cluster), class_="cluster")


def _members(content: Content, assigned: Assigned, cluster: int) -> list[Html]:
    """Images of the most and the least confident members, or their ids."""
    if content.dataset is None:
        return []
    ids, confidence = content.dataset.ids, assigned.confidence
    most, least = members(assigned.clusters, confidence, cluster)
    if _has_images(content):
        source = sprite(content.pictures, most, least)
        names = "; ".join(ids[row] for row in [*most, *least])
        sharp = "sharp" if source.startswith("data:image/png") else None
        return [element("img", src=source, alt=names, title=names, class_=sharp)]
    return [
        element("p", f"{name}: {', '.join(f'{ids[row]} ({confidence[row]:.2f})' for row in rows)}")
        for name, rows in (("Most confident", most[:MAX_IDS]), ("Least", least[-MAX_IDS:]))
        if len(rows)
    ]
