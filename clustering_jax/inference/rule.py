"""How a run turns the soft assignments of its model into clusters: corrections by hand, a threshold, levels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clustering_jax.files import read_json
from clustering_jax.inference.rows import second_best, unit

REJECTED = -1
EDITS = "edits.json"


class Rule(NamedTuple):
    """What follows a model's soft assignments.

    A model has k outputs. After corrections by hand, an output stands for one cluster, or for several parts of a
    cluster that was split. A row then belongs to the part with the nearest centroid in the embedding.

    Attributes:
      threshold: rows whose largest probability is smaller get the cluster -1.
      levels: for each level, the group of each cluster.
      outputs: for each output of the model, the clusters of its parts; () without corrections, where output i is
        cluster i.
      centroids: for each output of several parts, their centroids [parts, d], in the space of rows of norm 1.
    """

    threshold: float = 0.0
    levels: Mapping[str, list[int]] = {}
    outputs: tuple[tuple[int, ...], ...] = ()
    centroids: Mapping[int, np.ndarray] = {}

    @classmethod
    def of_run(cls, result: Mapping[str, Any] | None, edits: Mapping[str, Any] | None = None) -> Rule:
        """The rule of a run.

        Args:
          result: content of result.json, or None for an unfinished run.
          edits: content of edits.json, or None for a run without corrections.
        """
        result, edits = result or {}, edits or {}
        outputs = tuple(tuple(parts) for parts in edits.get("outputs", ()))
        centroids = {int(i): np.array(c, np.float32) for i, c in edits.get("centroids", {}).items()}
        threshold = result.get("rejection", {}).get("threshold", 0.0)
        return cls(threshold, result.get("levels", {}).get("groups", {}), outputs, centroids)

    @classmethod
    def read(cls, workdir: Path) -> Rule:
        """Reads the rule of a workdir. Corrections that leave each output its own cluster need no map."""
        rule = cls.of_run(read_json(workdir / "result.json"), read_json(workdir / EDITS))
        same = all(parts == (output,) for output, parts in enumerate(rule.outputs))
        return rule._replace(outputs=()) if same else rule

    @property
    def ids(self) -> np.ndarray:
        """The clusters after corrections, int, ascending; empty without corrections."""
        return np.unique([cluster for parts in self.outputs for cluster in parts]).astype(int)

    def mapped(self, probabilities: np.ndarray, embed: Callable[[], np.ndarray]) -> np.ndarray:
        """Soft assignments to the clusters, from those to the outputs of the model.

        Args:
          probabilities: [n, k] of the model.
          embed: computes the embedding [n, d] of the rows. It is called only if a cluster was split.

        Returns:
          [n, number of clusters]; `probabilities` itself without corrections.
        """
        if not self.outputs:
            return probabilities
        rows = unit(embed()) if self.centroids else None
        result = np.zeros((len(probabilities), len(self.ids)), probabilities.dtype)
        for output, parts in enumerate(self.outputs):
            column, part = np.searchsorted(self.ids, parts), np.zeros(len(result), int)
            if rows is not None and output in self.centroids:
                part = nearest(rows, self.centroids[output])
            result[np.arange(len(result)), column[part]] += probabilities[:, output]
        return result

    def clusters(self, probabilities: np.ndarray) -> np.ndarray:
        """The cluster of each row, int [n]; -1 where the model is not sure.

        Args:
          probabilities: [n, number of clusters], of `mapped`.
        """
        return np.where(probabilities.max(1) >= self.threshold, self._named(probabilities.argmax(1)), REJECTED)

    def columns(self, probabilities: np.ndarray) -> dict[str, list[str]]:
        """The columns of a file of assignments that need no other rows.

        Args:
          probabilities: [n, number of clusters], of `mapped`.

        Returns:
          n texts by the name of the column.
        """
        second, chance = second_best(probabilities)
        columns = {"second": numbers(self._named(second)), "second_probability": decimals(chance)}
        return columns | self.level_columns(self.clusters(probabilities))

    def level_columns(self, clusters: np.ndarray) -> dict[str, list[str]]:
        """The group of each row on each level.

        Args:
          clusters: cluster of each row, int [n].

        Returns:
          n texts by the name of the column; "-1" for a row without a cluster.
        """
        groups = {name: np.append(np.array(group, int), REJECTED) for name, group in self.levels.items()}
        return {f"level_{name}": numbers(group[clusters]) for name, group in groups.items()}

    def _named(self, columns: np.ndarray) -> np.ndarray:
        return self.ids[columns] if self.outputs else columns


PLAIN = Rule()


def nearest(rows: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The nearest centroid of each row.

    Args:
      rows: [n, d].
      centroids: [c, d].

    Returns:
      int [n].
    """
    return (np.sum(centroids**2, 1) / 2 - rows @ centroids.T).argmin(1)


def numbers(values: np.ndarray, empty: int | None = None) -> list[str]:
    """Whole numbers as text; "" for the value `empty`."""
    return ["" if value == empty else str(value) for value in values.tolist()]


def decimals(values: np.ndarray) -> list[str]:
    """Numbers as text with six decimal places."""
    return [f"{value:.6f}" for value in values.tolist()]
