"""What the estimators do with their arguments: settings into a config, and labels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from clustering_jax.data.base import Dataset
from clustering_jax.data.labels import read_labels
from clustering_jax.errors import UserError, nearest
from clustering_jax.settings.cc import of_kind

# The columns of assignments.csv that are attributes of their own.
FIRST = ("id", "cluster", "probability", "names")


def is_path(X: Any) -> bool:
    """Whether X is a file or a folder rather than data."""
    return isinstance(X, str | Path)


def is_images(X: Any) -> bool:
    """Whether X is one array of images, [n, h, w] or [n, h, w, c]."""
    return getattr(X, "ndim", 0) in (3, 4)


def refuse_images(X: Any) -> None:
    """Raises UserError for images, where features or views are wanted."""
    if is_images(X):
        shape, other = np.shape(X), "FeatureClustering, which embeds them first"
        raise UserError(f"X has shape {shape}: these are images, not features [n, d]: use {other}")


def configured(config: ConfigDict, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A config with changes, as a plain dictionary.

    Args:
      config: the config; it is changed.
      changes: values by dotted name.

    Raises:
      UserError: an unknown name or a value of the wrong type.
    """
    known = {*config, *flatten_dict(config.to_dict(), sep=".")}
    for name, value in changes.items():
        if name not in known:
            raise UserError(f"settings has an unknown '{name}'{nearest(name, known)}")
        value = value.item() if isinstance(value, np.generic) else value
        try:
            if isinstance(value, Mapping):
                config[name] = ConfigDict(value)
            else:
                config.update_from_flattened_dict({name: value})
        except (TypeError, ValueError) as error:
            raise UserError(f"{name} is {value!r}: {type(value).__name__} is not the type of this setting") from error
    result = config.to_dict()
    if "augment.kind" in changes:
        given = [name.removeprefix("augment.") for name in changes if name.startswith("augment.")]
        result["augment"] = of_kind(result["augment"], given)
    return result


def labelled(dataset: Dataset, y: Any) -> Dataset:
    """The data set with the labels y, see `read_labels`."""
    if y is None:
        return dataset
    return dataset._replace(labels=read_labels(y, dataset.num_examples, "y"))


def columns_of(rows: Sequence[Mapping[str, str]]) -> dict[str, np.ndarray]:
    """The further columns of assignments.csv as arrays [n] by name.

    Args:
      rows: the lines by the names of the columns, at least one.

    Returns:
      Chances and scores are floats. All others are integers, with -1 where the line has none, and 0 for "typical".
    """
    columns = {}
    for name in (name for name in rows[0] if name not in FIRST):
        texts = [row[name] for row in rows]
        if name in ("second_probability", "outlier"):
            columns[name] = np.array(texts, float)
        else:
            columns[name] = np.array([int(text or -(name != "typical")) for text in texts])
    return columns


def is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def text_of(path: Path) -> str:
    """The text of a file, whose names of files need not be UTF-8."""
    return path.read_text("utf-8", "surrogateescape")


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silences absl's log, where Orbax reports options that were set on purpose, and the errors that it raises too."""
    level = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)
