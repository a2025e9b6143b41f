"""Reads the rows that are added to a finished run, and gives them ids of their own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from clustering_jax.data.base import Dataset
from clustering_jax.data.embeddings import MANIFEST, unit_rows
from clustering_jax.data.images.for_embedding import ImageRows, folder_rows
from clustering_jax.data.joined import picked
from clustering_jax.editing.workdir import Finished
from clustering_jax.errors import UserError
from clustering_jax.inference.embedding import iter_embedded
from clustering_jax.inference.image_model import image_model_of
from clustering_jax.inference.new_rows import examples


def added_rows(run: Finished, source: str | Path) -> Dataset:
    """Reads rows that the run does not have yet.

    Args:
      run: the finished run.
      source: what `predict` takes as input. Files of a folder that the run has are left out.

    Returns:
      The rows, with ids that the run does not have: in a folder, the paths relative to the run's own folder; otherwise
      the ids as they are, behind the name of the input if the run has one of them.

    Raises:
      UserError: there is no new row, or the rows can't be read or are of another kind.
    """
    path, root = Path(source).expanduser(), _folder(run.predictor.config)
    known = set(run.dataset.ids)
    if root is None or not path.is_dir() or (path / MANIFEST).is_file():
        ids, features = _collected(examples(run.predictor, source, run.predictor.config["batch_size"]))
        return Dataset(features, _free(ids, path.name, known), None, path.name, "added")
    start = os.path.relpath(path, root)
    if len(run.predictor.shapes["image"]) == 1:
        ids, features = _embedded(run, path, start, known)
    else:
        ids, features = _collected(examples(run.predictor, path, run.predictor.config["batch_size"]))
    ids = [_below(start, name) for name in ids]
    new = [name for name in ids if name not in known]
    if not new:
        raise UserError(f"{path} holds no new row: the run has all of its files")
    return picked(Dataset(features, ids, None, path.name, "added"), new, str(path))


def _folder(config: Mapping[str, Any]) -> Path | None:
    """The folder of photos of the run, to which its ids are relative; None for other data."""
    data = config["scored"] or config["data"]
    settings = data
    while settings.get("source") == "joined":
        settings = settings["first"]
    if settings["source"] == "embeddings":
        settings = (config.get("embed") or {}).get("splits", {}).get(settings.get("split", ""), {})
    return Path(settings["path"]).expanduser() if settings.get("source") == "folder" else None


def _below(start: str, name: str) -> str:
    return os.path.normpath(os.path.join(start, name))


def _embedded(run: Finished, path: Path, start: str, known: set[str]) -> tuple[list[str], dict[str, np.ndarray]]:
    """Embeds the photos of a folder that the run does not have. The arguments are those of `added_rows`."""
    model = image_model_of(run.predictor.config)
    if model is None:
        raise UserError(f"{path}: the run was trained on embeddings without a model: give embeddings of the same kind")
    images = folder_rows(path)
    for note in images.notes:
        warnings.warn(note, stacklevel=2)
    images = _rows(images, [i for i, name in enumerate(images.ids) if _below(start, name) not in known])
    if not images.ids:
        return [], {}
    ids, features = _collected(iter_embedded(images, model, run.predictor.config["embed"]["batch_size"]))
    return ids, {"image": unit_rows(features, str(path))}


def _rows(images: ImageRows, numbers: Sequence[int]) -> ImageRows:
    """Some of the images, by their row numbers."""
    return images._replace(
        read=lambda row, fit: images.read(numbers[row], fit), ids=[images.ids[i] for i in numbers], labels=None
    )


def _collected(parts: Any) -> tuple[list[str], Any]:
    """Joins pairs of ids and rows, or of ids and features by name."""
    names, rows = zip(*parts, strict=True)
    return [name for part in names for name in part], jax.tree.map(lambda *arrays: np.concatenate(arrays), *rows)


def _free(ids: list[str], name: str, known: set[str]) -> list[str]:
    """The ids, behind the name of the input if the run has one of them: ``more.npz:0``."""
    number, result = 1, ids
    while not known.isdisjoint(result):
        prefix = name if number == 1 else f"{name}-{number}"
        result, number = [f"{prefix}:{row}" for row in ids], number + 1
    return result
