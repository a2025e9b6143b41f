"""Data sets by the name of their source."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clustering_jax.data import embeddings, planted
from clustering_jax.data.base import Dataset
from clustering_jax.data.images import arrays, folder, tfds
from clustering_jax.data.joined import with_added
from clustering_jax.data.kinds import right_source
from clustering_jax.data.views import dataset, digits
from clustering_jax.errors import UserError, check_keywords, nearest


def joined(first: Mapping[str, Any], added: str | Path, split: str = "all") -> Dataset:
    """Rows of another source, and rows that the command `update` added to them.

    Args:
      first: the settings of the other source.
      added: directory of the added rows, in the workdir of the updated run.
      split: name of the split.

    Raises:
      UserError: as the other source; or the directory is damaged, or a row is not there any more.
    """
    return with_added(load(**first), added, split)


SOURCES: dict[str, Callable[..., Dataset]] = {
    "arrays": arrays.arrays,
    "digits": folder.digits,
    "digits_views": digits.digits_views,
    "embeddings": embeddings.embeddings,
    "folder": folder.folder,
    "joined": joined,
    "multiview": dataset.multiview,
    "multiview_pca": dataset.multiview_pca,
    "planted": planted.planted,
    "planted_embeddings": planted.planted_embeddings,
    "synthetic": folder.synthetic,
    "tfds": tfds.tfds,
}


def load(source: str = "", **options: Any) -> Dataset:
    """Reads the data set of a source.

    Args:
      source: a key of `SOURCES`.
      options: arguments of that function.

    Raises:
      UserError: the source or an option is unknown (the message has the nearest name), or an option is missing; or as
        the source raises.
    """
    if source not in SOURCES:
        raise UserError(f"unknown data source '{source}'{nearest(source, SOURCES)}")
    function = SOURCES[source]
    check_keywords(function, options, f"data source '{source}'")
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is parameter.empty and name not in options:
            raise UserError(f"data source '{source}' needs the setting '{name}'")
    if isinstance(path := options.get("path"), str | Path) and not str(path):
        raise UserError(f"data source '{source}' has no path: give --config.data.path=PATH")
    with right_source(source, options.get("path")):
        return function(**options)
