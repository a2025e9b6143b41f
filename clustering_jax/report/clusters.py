"""The report's part on the clusters: sizes, matching with classes, a map, and who is in each."""

from __future__ import annotations

import math

import numpy as np
from sklearn.metrics import silhouette_samples
from sklearn.metrics.cluster import contingency_matrix

from clustering_jax import metrics
from clustering_jax.report.charts import NUMBERED, bars, confusion, scatter
from clustering_jax.report.content import Assigned, Content
from clustering_jax.report.layout import MAPS, flat
from clustering_jax.report.markup import Html, element
from clustering_jax.report.montage import members, sprite

CLASSES = 30  # of the confusion matrix
CARDS = 100
IDS = 3


def clusters(content: Content, kind: str) -> list[Html]:
    """The sections; without assignments there are none. kind: of the map."""
    if content.assigned is None:
        return []
    known, matched = _known(content), {}
    silhouettes, drawn = _silhouettes(content)
    charts = [_sizes(content.assigned), *drawn]
    if known is not None:
        true, found = known
        matched = metrics.match(true, found)
        charts.append(_confusion(true, found, matched))
    charts += _map(content, kind)
    shown, k = _shown(content.assigned), content.assigned.k
    more = f"{len(shown)} of {k} clusters: the largest, and none that is empty. " if len(shown) < k else ""
    cards = [_card(content, i, matched, silhouettes) for i in shown]
    return [
        element("h2", "Clusters"),
        element("div", *charts, class_="charts"),
        element("h2", "Members"),
        element("p", more + _legend(content), class_="note"),
        element("div", *cards, class_="grid"),
    ]


def _known(content: Content) -> tuple[np.ndarray, np.ndarray] | None:
    """``(classes, clusters)`` of the rows that have a label; None where none has."""
    labels = content.dataset.labels if content.dataset else None
    if labels is None or not (labels >= 0).any():
        return None
    return labels[labels >= 0], content.assigned.clusters[labels >= 0]


def _sizes(assigned: Assigned) -> Html:
    sizes, n = metrics.cluster_sizes(assigned.clusters, assigned.k), len(assigned.clusters)
    told = f"{metrics.occupied(assigned.clusters, assigned.k)} of {assigned.k} clusters are occupied; "
    note = f"{told}{n:,} members; dashed: an equal share, {n / assigned.k:,.0f}."
    return bars(sizes.tolist(), title="Cluster sizes", x_label="cluster", level=n / assigned.k, note=note)


def _confusion(true: np.ndarray, found: np.ndarray, matched: dict[int, int]) -> Html:
    """Classes in order, each above its matched cluster, then clusters that match none; the largest of both."""
    whole = contingency_matrix(true, found)
    classes, present = np.unique(true), np.unique(found)
    largest, fullest = (np.argsort(-whole.sum(axis), kind="stable") for axis in (1, 0))
    rows = np.sort(largest[:CLASSES])
    partner = {label: cluster for cluster, label in matched.items()}
    columns = [np.searchsorted(present, partner[c]) for c in classes[rows].tolist() if c in partner]
    left = [c for c in fullest if present[c] not in matched]
    columns += left[: CLASSES - len(columns)]
    note = "Shade: share of the class. Clusters stand in the order of the classes that they match best, one to one."
    if len(classes) > len(rows) or len(present) > len(columns):
        note += f" {len(rows)} of {len(classes)} classes and {len(columns)} of {len(present)} clusters are shown."
    names, title = (classes[rows].tolist(), present[columns].tolist()), "Classes and clusters after matching"
    return confusion(whole[np.ix_(rows, columns)], whole.sum(1)[rows], *names, title=title, note=note)


def _embedded(content: Content) -> str:
    """Of which members the embedding is known, in words; "" where it is of too few."""
    m, n = 0 if content.rows is None else len(content.rows), len(content.assigned.clusters)
    return "" if m < 4 else f"all {m:,} members" if m == n else f"{m:,} members, drawn at random"


def _map(content: Content, kind: str) -> list[Html]:
    whole = _embedded(content)
    if not whole:
        return []
    note = f"{MAPS[kind]} of the embedding of {whole}. Numbers stand at the middle of their clusters."
    points, own = flat(content.embedding, kind), content.assigned.clusters[content.rows]
    if len(np.unique(own)) > NUMBERED:
        note += f" The {NUMBERED} largest have one."
    return [scatter(points, own, title="Map of the embedding", note=note)]


def _silhouettes(content: Content) -> tuple[dict[int, float], list[Html]]:
    """The mean silhouette of each cluster in the embedded sample, and its chart; none where it is undefined."""
    whole = _embedded(content)
    if not whole:
        return {}, []
    rows, own = np.asarray(content.embedding, np.float64), content.assigned.clusters[content.rows]
    mean = metrics.silhouette(rows, own, sample=len(rows))
    if math.isnan(mean):
        return {}, []
    values = silhouette_samples(rows, own)
    each = {c: float(values[own == c].mean()) for c in np.unique(own).tolist()}
    drawn = [round(each.get(i, math.nan), 2) for i in range(content.assigned.k)]
    note = f"In the embedding, of {whole}: how much closer a member is to its own cluster than to the next, -1 to 1."
    return each, [bars(drawn, title=f"Silhouette, mean {mean:.3f}", x_label="cluster", level=mean, note=note)]


def _shown(assigned: Assigned) -> list[int]:
    """The largest clusters that hold a member, by number."""
    sizes = metrics.cluster_sizes(assigned.clusters, assigned.k)
    return sorted(i for i in np.argsort(-sizes, kind="stable")[:CARDS].tolist() if sizes[i])


def _pictured(content: Content) -> bool:
    return content.dataset is not None and getattr(content.dataset.features.get("image"), "ndim", 0) == 4


def _legend(content: Content) -> str:
    if _pictured(content):
        return "Upper row: the most confident members, lower row: the least confident, each from more to less."
    if content.dataset is None:
        return "The data is not at hand, so members are not shown."
    return "Members by id, with the probability of their cluster."


def _card(content: Content, cluster: int, matched: dict[int, int], silhouettes: dict[int, float]) -> Html:
    clusters, confidence, _ = content.assigned
    own = clusters == cluster
    facts = [f"{int(own.sum()):,} members, mean confidence {confidence[own].mean():.3f}"]
    if cluster in silhouettes:
        facts.append(f"silhouette {silhouettes[cluster]:.3f}")
    if cluster in matched:
        facts.append(f"matches class {matched[cluster]}")
    parts = [element("h3", f"Cluster {cluster}"), element("p", ", ".join(facts), class_="note")]
    words = content.names[cluster] if content.names else []
    parts += [element("p", *(element("span", word, class_="word") for word in words))] if words else []
    return element("section", *parts, *_members(content, cluster), class_="cluster")


def _members(content: Content, cluster: int) -> list[Html]:
    """Pictures of the members, or their ids."""
    most, least = members(content.assigned.clusters, content.assigned.confidence, cluster)
    if content.dataset is None:
        return []
    ids, sure = content.dataset.ids, content.assigned.confidence
    if _pictured(content):
        source = sprite(content.dataset.features["image"], most, least)
        told = "; ".join(ids[row] for row in [*most, *least])
        sharp = "sharp" if source.startswith("data:image/png") else None
        return [element("img", src=source, alt=told, title=told, class_=sharp)]
    return [
        element("p", f"{name}: {', '.join(f'{ids[row]} ({sure[row]:.2f})' for row in rows)}")
        for name, rows in (("Most confident", most[:IDS]), ("Least", least[-IDS:]))
        if len(rows)
    ]
