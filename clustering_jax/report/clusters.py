"""The numbers of the clusters: sizes, silhouettes, matching with the classes, levels, and reliability."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import silhouette_samples
from sklearn.metrics.cluster import contingency_matrix

from clustering_jax import metrics
from clustering_jax.report.assigned import Assigned
from clustering_jax.report.charts import bars, confusion, lines
from clustering_jax.report.content import Content, clusters_of, sample
from clustering_jax.report.markup import Html

MAX_CLASSES = 30  # rows and columns of the confusion matrix
SILHOUETTES = 2000  # largest number of rows whose silhouette is computed


class Facts(NamedTuple):
    """What is known of the clusters.

    Attributes:
      lines: a line of text on each cluster that has a row.
      charts: charts of all clusters.
    """

    lines: dict[int, str]
    charts: list[Html]


def facts_of(content: Content, assigned: Assigned) -> Facts:
    """Computes the facts and the charts of the clusters."""
    labelled, matched = _labelled(content, assigned), {}
    silhouettes, charts = _silhouettes(content, assigned)
    charts.insert(0, _sizes(assigned, len(clusters_of(content))))
    if labelled is not None:
        matched = metrics.match(*labelled)
        charts.append(_confusion(*labelled, matched))
    present = np.unique(assigned.clusters).tolist()
    return Facts({cluster: _line(assigned, cluster, matched, silhouettes) for cluster in present}, charts)


def _line(assigned: Assigned, cluster: int, matched: dict[int, int], silhouettes: dict[int, float]) -> str:
    own = assigned.clusters == cluster
    facts = [f"{int(own.sum()):,} members, mean confidence {assigned.confidence[own].mean():.3f}"]
    if cluster in silhouettes:
        facts.append(f"silhouette {silhouettes[cluster]:.3f}")
    if cluster in matched:
        facts.append(f"matches class {matched[cluster]}")
    return ", ".join(facts)


def _labelled(content: Content, assigned: Assigned) -> tuple[np.ndarray, np.ndarray] | None:
    """``(classes, clusters)`` of the rows that have a label and a cluster; None if there are none."""
    labels = content.dataset.labels if content.dataset else None
    known = labels is not None and (labels >= 0) & (assigned.clusters >= 0)
    if labels is None or not np.any(known):
        return None
    return labels[known], assigned.clusters[known]


def _sizes(assigned: Assigned, k: int) -> Html:
    sizes = _cluster_sizes(assigned)
    n, without = int(sizes.sum()), int((assigned.clusters < 0).sum())
    occupied = f"{int((sizes > 0).sum())} of {k} clusters are occupied"
    rejected = f"; {without:,} rows of low confidence have no cluster" if without else ""
    note = f"{occupied}; {n:,} members{rejected}; dashed line: the mean size, {n / k:,.0f}."
    return bars(sizes.tolist(), title="Cluster sizes", x_label="cluster", level=n / k, note=note)


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
    part = np.flatnonzero(assigned.clusters[content.rows] >= 0)
    part = part[sample(len(part), SILHOUETTES)]
    points, clusters = content.embedding[part], assigned.clusters[content.rows[part]]
    m, n = len(points), int((assigned.clusters >= 0).sum())
    phrase = f"all {m:,} members" if m == n else f"{m:,} members, drawn at random"
    return None if m < 4 else _Embedded(points, clusters, phrase)


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


def reliability(result: Mapping[str, Any], n: int) -> list[Html]:
    """The chart of the rows that the model is not sure of, by confidence; none without a threshold.

    Args:
      result: content of result.json.
      n: number of rows.
    """
    rejection = result.get("rejection")
    if not rejection or not rejection.get("reliability"):
        return []
    confidence, agreement = (
        [group[name] for group in rejection["reliability"]] for name in ("confidence", "agreement")
    )
    note = (
        f"Rows with a probability below {rejection['threshold']:.3f} have no cluster. {rejection['assigned']:,} of "
        f"{n:,} rows keep theirs, and {rejection['expected']:.0%} of these are expected to be right "
        f"({rejection['calibrated_by']})."
    )
    if "acc" in rejection.get("scores", {}):
        note += f" By the labels, {rejection['scores']['acc']:.0%} are."
    series = {"agreement": (confidence, agreement), "as confident": (confidence, confidence)}
    share, marks = (0.0, 1.0), [(rejection["threshold"], "threshold")]
    axes: dict[str, Any] = {"x_label": "probability", "limits": share, "x_limits": share}
    return [lines(series, title="Reliability", marks=marks, note=note, **axes)]
