"""What the estimators do with their arguments: settings into a config, labels and a digest of the data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from clustering_jax.data.base import Dataset, known_labels
from clustering_jax.errors import UserError, nearest


def is_path(X: Any) -> bool:
    """Whether X is a file or a folder rather than data."""
    return isinstance(X, str | Path)


def is_images(X: Any) -> bool:
    """Whether X is one array of images, [n, h, w] or [n, h, w, c]."""
    return not isinstance(X, list | tuple) and np.ndim(X) in (3, 4)


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
    return config.to_dict()


def labelled(dataset: Dataset, y: Any) -> Dataset:
    """The data set with the labels y. Labels that are not integers are replaced by their ranks."""
    if y is None:
        return dataset
    labels = np.asarray(y)
    if labels.shape not in ((dataset.num_examples,), (dataset.num_examples, 1)):
        raise UserError(f"y has shape {labels.shape}, X has {dataset.num_examples} rows: give one label a row, or none")
    labels = labels.reshape(-1)
    labels = labels if labels.dtype.kind in "iu" else np.unique(labels, return_inverse=True)[1]
    return dataset._replace(labels=known_labels(labels.astype(np.int64)))


def digest_of(dataset: Dataset) -> str:
    """A digest of a data set, so that a workdir is not used for another one."""
    digest = hashlib.blake2b(digest_size=16)
    words = dataset.vocabulary
    arrays = {**dataset.features, "nouns": words.embeddings} if words else dataset.features
    for name, array in arrays.items():
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
