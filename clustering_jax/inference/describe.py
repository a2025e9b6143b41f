"""What a finished run says of its rows: the columns of assignments.csv after the first ones, and their summary."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from clustering_jax.data.base import Dataset
from clustering_jax.errors import ResultWarning, UserError
from clustering_jax.inference import levels
from clustering_jax.inference.balanced import log_shares
from clustering_jax.inference.duplicates import duplicate_groups, first_equal
from clustering_jax.inference.features import NEIGHBOURS
from clustering_jax.inference.rejection import (
    agreement_of_halves,
    agreement_of_seeds,
    rejection,
    reliability,
)
from clustering_jax.inference.results import known_scores
from clustering_jax.inference.rows import cosines, medoids, outlier_scores, similar_rows, unit
from clustering_jax.inference.rule import Rule, decimals, numbers

# Largest `rows.duplicates`: above it, pairs that are near by chance are marked.
MOST = 0.6


class Described(NamedTuple):
    """What is known of the rows.

    Attributes:
      clusters: cluster of each row, int [n]; -1 where the model is not sure.
      columns: n texts by the name of the column.
      summary: additions to result.json.
      embedding: the embedding of the rows, [n, d] of norm 1; empty if it was not needed.
      neighbours: row numbers of the nearest rows, int [n, 20] or more; None if the rows were not compared.
    """

    clusters: np.ndarray
    columns: dict[str, list[str]]
    summary: dict[str, Any]
    embedding: np.ndarray
    neighbours: np.ndarray | None


def check(config: Mapping[str, Any]) -> None:
    """Checks the settings of the rows.

    Args:
      config: the config of the run, with the number of clusters.

    Raises:
      UserError: a value is out of its range, or `balanced` knows no sizes.
    """
    k, rows = config["num_clusters"], config["rows"]
    if config.get("balanced"):
        log_shares(config)
    if not 0 <= config["reject"] <= 1:
        raise UserError(f"reject is {config['reject']}: choose a share from 0 (off) to 1, for example 0.9")
    wrong = [count for count in config["levels"] if not (isinstance(count, int) and 2 <= count < k)]
    if wrong:
        raise UserError(f"levels has {wrong[0]}: a level has from 2 to {k - 1} groups of the {k} clusters")
    if rows["neighbours"] < 0 or not 0 <= rows["duplicates"] <= MOST:
        raise UserError(
            f"rows.neighbours is {rows['neighbours']} and rows.duplicates {rows['duplicates']}: choose 0 or more "
            f"neighbours, and a share of the distance to the fifth nearest row, from 0 (off) to {MOST}"
        )


def describe(
    config: Mapping[str, Any],
    scored: Dataset,
    assigned: Sequence[np.ndarray],
    best: int,
    embed: Callable[[Mapping[str, Any]], np.ndarray],
) -> Described:
    """Describes the rows of a finished run. Every process calls this.

    Args:
      config: the config of the run, with the number of clusters.
      scored: the rows.
      assigned: soft assignments [n, k] of each seed.
      best: the seed that is kept.
      embed: computes the embedding [n, d] of features.
    """
    probabilities, n = assigned[best], scored.num_examples
    clusters = probabilities.argmax(1)
    summary: dict[str, Any] = {}
    columns: dict[str, list[str]] = {}
    compared = _compares(config, n)
    if config["rows"]["neighbours"] and not compared:
        warnings.warn(
            f"{n} rows are more than rows.limit, {config['rows']['limit']}: they are not compared with each other, so "
            "there are no outliers and duplicates; raise it if you have the time",
            stacklevel=2,
        )
    rows = unit(embed(scored.features)) if compared or config["levels"] or config["reject"] else np.zeros((0, 0))
    neighbours = None
    if compared:
        # One search serves the scores of the features, too.
        neighbours = similar_rows(rows, max(config["rows"]["neighbours"], NEIGHBOURS))
        near = neighbours[:, : config["rows"]["neighbours"]]
        columns["outlier"] = decimals(outlier_scores(cosines(rows, near)))
        columns["duplicate_group"] = numbers(_duplicates(config, scored, rows, neighbours), -1)
        columns["typical"] = numbers(medoids(rows, clusters), 0)
    if config["reject"]:
        summary["rejection"] = _rejection(config, scored, assigned, best, rows)
    if config["levels"]:
        summary["levels"] = _levels(config, rows, clusters)
    rule = Rule.of_run(summary)
    first = rule.columns(probabilities)
    last = {name: first.pop(name) for name in list(first) if name.startswith("level_")}
    return Described(rule.clusters(probabilities), {**first, **columns, **last}, summary, rows, neighbours)


def _duplicates(config: Mapping[str, Any], scored: Dataset, rows: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    share, n = config["rows"]["duplicates"], len(rows)
    return duplicate_groups(rows, neighbours, share, first_equal(scored.features, n)) if share else np.full(n, -1)


def _compares(config: Mapping[str, Any], n: int) -> bool:
    return config["rows"]["neighbours"] > 0 and n <= config["rows"]["limit"]


def _rejection(
    config: Mapping[str, Any], scored: Dataset, assigned: Sequence[np.ndarray], best: int, rows: np.ndarray
) -> dict[str, Any]:
    """The threshold of the confidence, how it was found, and the scores of the rows it keeps if there are labels."""
    clusters, confidence = [p.argmax(1) for p in assigned], assigned[best].max(1)
    by, agreement = "clusterings of half of the rows", agreement_of_halves(rows, clusters[best])
    if len(assigned) > 1:
        by, agreement = f"{len(assigned)} seeds and {by}", agreement * agreement_of_seeds(clusters, best)
    found = rejection(confidence, agreement, config["reject"])
    kept = confidence >= found.threshold
    labels, scores = scored.labels, {}
    if labels is not None and (labels[kept] >= 0).any():
        scores = {"scores": known_scores(labels[kept], clusters[best][kept])}
    summary = {
        "share": config["reject"],
        **found._asdict(),
        "assigned": int(kept.sum()),
        "calibrated_by": by,
        "reliability": reliability(confidence, agreement),
        **scores,
    }
    warn_of_rejection(summary, len(kept))
    return summary


def warn_of_rejection(rejection: Mapping[str, Any], n: int) -> None:
    """Warns if the share of rows that should be right can't be reached.

    Args:
      rejection: "rejection" of result.json.
      n: number of rows.
    """
    if rejection["expected"] < rejection["share"]:
        warnings.warn(
            f"reject is {rejection['share']}, but no more than {rejection['expected']:.2f} of the surest rows are "
            f"expected to be right; the {rejection['assigned']} surest of {n} rows keep their clusters",
            ResultWarning,
            stacklevel=2,
        )


def _levels(config: Mapping[str, Any], rows: np.ndarray, clusters: np.ndarray) -> dict[str, Any]:
    occupied, links = levels.tree(rows, clusters)
    groups = levels.groups(occupied, links, config["num_clusters"], config["levels"])
    return {"groups": groups, "clusters": occupied.tolist(), "linkage": links.tolist()}
