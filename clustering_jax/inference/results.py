"""The results of a finished run: scores, protocol, assignments, and the table in the terminal."""

from __future__ import annotations

import csv
import platform
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import jax
import numpy as np
from sklearn.cluster import KMeans

from clustering_jax import __version__, metrics
from clustering_jax.data.base import Dataset
from clustering_jax.errors import ResultWarning
from clustering_jax.files import write_atomic, write_json
from clustering_jax.methods.imputation import from_neighbours
from clustering_jax.methods.views import view_names
from clustering_jax.metrics import evaluate

# Words of each cluster: in their order, or by the number of the cluster.
Names = Sequence[Sequence[str]] | Mapping[int, Sequence[str]]
TABLE = ("acc", "nmi", "ari", "purity")


def versions() -> dict[str, str]:
    """Returns the versions and the kind of device that a result was computed with."""
    packages = ("jax", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "clustering_jax": __version__,
        **{name: version(name) for name in packages},
        "device": f"{len(jax.devices())} x {device.platform} ({device.device_kind})",
    }


def score(probabilities: np.ndarray, dataset: Dataset) -> dict[str, float]:
    """Scores soft assignments. It warns once if fewer than half of the clusters are occupied.

    Args:
      probabilities: [n, k].
      dataset: the n scored rows.

    Returns:
      Scores by name, see `clustering_jax.metrics.evaluate`.
    """
    scores, k = evaluate(probabilities, dataset.labels), probabilities.shape[1]
    if scores["occupied"] < k / 2:
        warn_of_empty_clusters(k)
    return scores


def warn_of_empty_clusters(k: int) -> None:
    """Warns that clusters are empty. Python shows the same text from the same line once."""
    advice = "fewer clusters, another seed (num_seeds=3 keeps one without labels), more epochs or a larger batch"
    warnings.warn(f"some of the {k} clusters are empty: try {advice}", ResultWarning, stacklevel=1)


def score_all(assignments: Sequence[np.ndarray], dataset: Dataset) -> dict[str, float]:
    """Scores the soft assignments of one or several seeds.

    Args:
      assignments: [n, k] of each seed.
      dataset: the n scored rows.

    Returns:
      `score` of one seed. For several seeds the means and, if there are labels, "acc_std", the standard deviation of
      the accuracy.
    """
    scores = [score(p, dataset) for p in assignments]
    means = scores[0] if len(scores) == 1 else {k: float(np.mean([s[k] for s in scores])) for k in scores[0]}
    spread = {"acc_std": float(np.std([s["acc"] for s in scores]))} if len(scores) > 1 and "acc" in means else {}
    return {**means, **spread}


def write_assignments(
    path: Path,
    ids: Iterable,
    probabilities: np.ndarray,
    names: Names = (),
    clusters: np.ndarray | None = None,
    columns: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> None:
    """Writes assignments.csv: one row per example, in input order.

    Args:
      path: the file.
      ids: n ids.
      probabilities: [n, k].
      names: words for each cluster, or [].
      clusters: see `assignment_lines`.
      columns: see `assignment_lines`.
    """
    text = assignment_lines(ids, probabilities, names, header=True, clusters=clusters, columns=columns)
    write_atomic(path, text)


def assignment_lines(
    ids: Iterable,
    probabilities: np.ndarray,
    names: Names = (),
    *,
    header: bool,
    clusters: np.ndarray | None = None,
    columns: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Iterable[str]:
    """Formats assignments as CSV. File names are quoted if they need it.

    Args:
      ids: n ids.
      probabilities: [n, k].
      names: words for each cluster, or [].
      header: whether the first line holds the names of the columns.
      clusters: cluster of each row, int [n]; -1 is no cluster, and has no names. None is the most probable one.
      columns: n texts of each further column, by its name.

    Returns:
      The text, with the columns id, cluster, largest probability and, if there are any, the names of the cluster, and
      the further columns.
    """
    lines: list[str] = []
    # A writer whose lines end with both quotes cells that hold one of them, as names of files may.
    target = SimpleNamespace(write=lambda line: lines.append(f"{line[:-2]}\n"))
    writer = csv.writer(target, lineterminator="\r\n")
    if header:
        writer.writerow(["id", "cluster", "probability"] + ["names"] * bool(names) + list(columns))
    clusters = probabilities.argmax(1) if clusters is None else clusters
    words = [["; ".join(names[cluster]) if cluster >= 0 else "" for cluster in clusters]] if names else []
    rest = zip(*words, *columns.values(), strict=True) if words or columns else [()] * len(clusters)
    for name, cluster, row, more in zip(ids, clusters, probabilities, rest, strict=True):
        writer.writerow([name, cluster, f"{row.max():.6f}", *more])
    return ["".join(lines)]


def write_clusters(path: Path, probabilities: np.ndarray, names: Sequence[Sequence[str]]) -> None:
    """Writes clusters.json: number, size and names of each cluster.

    Args:
      path: the file.
      probabilities: [n, k].
      names: words for each of the k clusters.
    """
    sizes = np.bincount(probabilities.argmax(1), minlength=probabilities.shape[1])
    rows = zip(sizes, names, strict=True)
    write_json(path, [{"cluster": i, "size": int(size), "names": list(n)} for i, (size, n) in enumerate(rows)])


def result_of(
    config: Mapping, dataset: Dataset, scored: Dataset, probabilities: np.ndarray, seconds: float
) -> dict[str, Any]:
    """Returns the content of result.json.

    Args:
      config: the resolved configuration.
      dataset: the training data.
      scored: the data that `probabilities` belong to.
      probabilities: soft assignments [n, k].
      seconds: seconds of training.
    """
    baselines = kmeans_baseline(scored, config["num_clusters"]) if config["kmeans_baseline"] else {}
    return {
        "method": Path(config["method"]).name,  # without the directory of a FILE.py:FUNCTION
        "scores": score(probabilities, scored),
        "baselines": [baselines] if baselines else [],
        "protocol": {
            "trained_on": _split(dataset),
            "scored_on": _split(scored),
            "labels": "for scoring alone" if scored.labels is not None else "none",
            "scored_at": "last epoch",
        },
        "seed": config["seed"],
        "versions": versions(),
        "wall_time_seconds": seconds,
    }


def _split(dataset: Dataset) -> str:
    return f"{dataset.name}, {dataset.split}: {dataset.num_examples} examples"


def kmeans_baseline(dataset: Dataset, k: int) -> dict[str, Any]:
    """Scores k-means with 10 restarts on pixels, on embeddings, or on all views concatenated.

    For a view that a row lacks, it takes the mean of its nearest rows, as the method `kmeans` does.

    Args:
      dataset: the rows to cluster.
      k: number of clusters.

    Returns:
      "name" and the scores; empty if there are no labels.
    """
    if dataset.labels is None:
        return {}
    if "image" in dataset.features:
        rows: np.ndarray = dataset.features["image"].astype(np.float32)
        name, rows = ("k-means on pixels", rows / 255) if rows.ndim == 4 else ("k-means on embeddings", rows)
    else:
        views = [dataset.features[view] for view in view_names(dataset.features)]
        mask = dataset.features.get("mask", np.ones((len(views[0]), len(views)), bool))
        name, rows = "k-means on views", np.concatenate(from_neighbours(views, mask), 1)
    clusters = KMeans(k, n_init=10, random_state=0).fit_predict(rows.reshape(len(rows), -1))
    return {"name": name, **known_scores(dataset.labels, clusters)}


def known_scores(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """Scores clusters on the rows whose label is known, which means not negative.

    Args:
      labels: int [n].
      clusters: int [n].
    """
    return metrics.scores(labels[labels >= 0], clusters[labels >= 0])


def baselines_of(clusters: Mapping[str, np.ndarray], scored: Dataset) -> list[dict[str, Any]]:
    """Scores the clusters of baselines.

    Args:
      clusters: int [n] by name of the baseline.
      scored: the n scored rows.

    Returns:
      "name" and the scores of each baseline; empty if there are no labels.
    """
    labels = scored.labels
    return [] if labels is None else [{"name": name, **known_scores(labels, c)} for name, c in clusters.items()]


def _scored(result: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Yields the rows of the table: name and scores."""
    yield result["method"], result["scores"]
    if several := result.get("seeds"):
        count = len(several["each"])
        yield f"mean of {count}", several["mean"]
        yield "std", several["std"]
        yield "best by label", max(several["each"], key=lambda scores: scores["acc"])
    for baseline in result["baselines"]:
        yield baseline["name"], baseline


def table(result: Mapping[str, Any]) -> str:
    """Formats result.json as a table for the terminal."""
    scores, protocol, rows = result["scores"], result["protocol"], []
    if "acc" in scores:
        rows = [f"{'':25}" + "".join(f"{name.upper():>8}" for name in TABLE)]
        for name, values in _scored(result):
            rows.append(f"{name:25}" + "".join(f"{values[key]:8.3f}" for key in TABLE))
    if "knn_consistency" in scores:
        vote = f"accuracy of their vote {scores['knn_accuracy']:.3f}, " if "knn_accuracy" in scores else ""
        same = f"in the same cluster {scores['knn_consistency']:.3f}"
        rows.append(f"neighbours in the features: {vote}{same} ({protocol['neighbours']})")
    names = result.get("names", [])
    there = result.get("clusters", range(len(names)))  # after corrections, not all numbers are clusters
    rows += [f"cluster {i}: {', '.join(words)}" for i, words in enumerate(names) if words and i in there]
    return "\n".join(
        [
            *rows,
            f"trained on {protocol['trained_on']}; scored on {protocol['scored_on']}; labels: {protocol['labels']}",
            f"{scores['occupied']} clusters occupied, sizes {scores['smallest']} to {scores['largest']}, "
            f"mean confidence {scores['confidence']:.3f}; seed {result['seed']}, {result['wall_time_seconds']:.0f} s",
        ]
    )
