"""The assignments of a run as the report shows them, read from assignments.csv."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clustering_jax.errors import UserError

FIRST = ("id", "cluster", "probability")


class Assigned(NamedTuple):
    """The hard assignments.

    Attributes:
      ids: n ids.
      clusters: cluster of each row, int [n]; -1 for a row that the model is not sure of.
      confidence: probability of that cluster, float32 [n].
      k: number of clusters, or one more than the largest number of a cluster after corrections.
      columns: the further columns of numbers, float64 [n] by name, NaN where a row has no value.
    """

    ids: list[str]
    clusters: np.ndarray
    confidence: np.ndarray
    k: int
    columns: Mapping[str, np.ndarray]


def read_assignments(path: Path, k: int) -> Assigned | None:
    """Reads assignments.csv.

    Args:
      path: the file.
      k: number of clusters.

    Returns:
      The assignments; None if the file does not exist.

    Raises:
      UserError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            lines = csv.reader(file)
            header = next(lines)
            texts = list(zip(*lines, strict=True)) or [()] * len(header)
        named = dict(zip(header, texts, strict=True))
        ids, clusters, confidence = (named[name] for name in FIRST)
        columns = {name: _numbers(column) for name, column in named.items() if name not in (*FIRST, "names")}
        return Assigned(list(ids), np.array(clusters, np.int32), np.array(confidence, np.float32), k, columns)
    except (OSError, ValueError, KeyError, StopIteration, csv.Error) as error:
        raise UserError(f"{path} can't be read, it is damaged ({error})") from error


def _numbers(texts: tuple[str, ...]) -> np.ndarray:
    return np.array([float(text) if text else np.nan for text in texts])
