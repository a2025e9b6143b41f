"""Rows of a data set, and rows that were added to them later, from a directory of arrays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clustering_jax.data.base import Dataset
from clustering_jax.data.claims import check_npy
from clustering_jax.data.images.streaming import LazyArray
from clustering_jax.data.views.readers import reading
from clustering_jax.errors import UserError

ROWS = "rows.json"


def write_added(directory: Path, dataset: Dataset, first: int) -> None:
    """Writes rows that were added.

    Args:
      directory: a new directory.
      dataset: all rows. Labels of added rows are not written.
      first: number of rows that were not added.
    """
    directory.mkdir(parents=True)
    for name, values in dataset.features.items():
        np.save(directory / f"{name}.npy", np.asarray(values[first:]))
    content = {"first": dataset.ids[:first], "added": dataset.ids[first:], "features": sorted(dataset.features)}
    (directory / ROWS).write_text(json.dumps(content), encoding="utf-8", errors="surrogateescape")


def with_added(first: Dataset, directory: str | Path, split: str) -> Dataset:
    """Joins a data set with the rows that `write_added` wrote.

    Args:
      first: the data set. Rows that it did not have then are left out.
      directory: the directory.
      split: name of the split of the result.

    Returns:
      The rows in their order, those of `first` before the others. Added rows have no labels.

    Raises:
      UserError: the directory is damaged, or `first` lacks a row.
    """
    root = Path(directory).expanduser()
    with reading(root / ROWS):
        content = json.loads((root / ROWS).read_text(encoding="utf-8", errors="surrogateescape"))
        before, after, names = content["first"], content["added"], content["features"]
    features = {}
    for name in names:
        with reading(root / f"{name}.npy"):
            check_npy(root / f"{name}.npy")
            features[name] = np.load(root / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    return joined_rows(picked(first, before, first.name), Dataset(features, after, None, first.name, split))


def picked(dataset: Dataset, ids: Sequence[str], where: str) -> Dataset:
    """The rows of a data set with these ids, in their order. A folder may hold more files than it once did.

    Raises:
      UserError: the data set lacks an id.
    """
    if list(ids) == list(dataset.ids):
        return dataset
    position = {row: i for i, row in enumerate(dataset.ids)}
    missing = [row for row in ids if row not in position]
    if missing:
        raise UserError(f"the data is not that of {where}: it lacks the row '{missing[0]}'")
    rows = np.array([position[row] for row in ids])
    labels = None if dataset.labels is None else dataset.labels[rows]
    features = {name: _taken(values, rows) for name, values in dataset.features.items()}
    return dataset._replace(features=features, ids=list(ids), labels=labels, partners={}, blocks=None)


def joined_rows(first: Dataset, added: Dataset) -> Dataset:
    """Joins two data sets with the same features. Where only one has a mask, the other has all views in all rows.

    Raises:
      UserError: the features differ.
    """
    masks = [d.features["mask"].shape[1] for d in (first, added) if "mask" in d.features]
    first, added = ((_masked(d, *masks) if len(masks) == 1 else d) for d in (first, added))
    ours, theirs = ({n: v.shape[1:] for n, v in d.features.items()} for d in (first, added))
    if ours != theirs:
        raise UserError(f"the new rows have features {theirs}, the old ones {ours}: give rows of the same kind")
    features = {name: _joined(values, added.features[name]) for name, values in first.features.items()}
    labels = None
    if first.labels is not None or added.labels is not None:
        parts = [d.labels if d.labels is not None else np.full(d.num_examples, -1) for d in (first, added)]
        labels = np.concatenate(parts)
    return first._replace(
        features=features, ids=[*first.ids, *added.ids], labels=labels, split=added.split, partners={}, blocks=None
    )


def _masked(dataset: Dataset, num_views: int) -> Dataset:
    whole = np.ones((dataset.num_examples, num_views), bool)
    return dataset._replace(features={"mask": whole, **dataset.features})


def _taken(values: Any, rows: np.ndarray) -> Any:
    if not isinstance(values, LazyArray):
        return values[rows]
    return LazyArray((len(rows), *values.shape[1:]), lambda index: values.read(rows[index]), values.mark)


def _joined(first: Any, added: Any) -> Any:
    if not isinstance(first, LazyArray):
        return np.concatenate([first, np.asarray(added, first.dtype)])

    def read(index: np.ndarray) -> list[np.ndarray]:
        index, near = np.asarray(index), np.asarray(index) < len(first)
        result: list[Any] = [None] * len(index)
        before, after = np.flatnonzero(near), np.flatnonzero(~near)
        for place, row in zip(before, first.read(index[before]) if len(before) else (), strict=True):
            result[place] = row
        for place in after:
            result[place] = np.asarray(added[index[place] - len(first)])
        return result

    return LazyArray((len(first) + len(added), *first.shape[1:]), read, first.mark)
