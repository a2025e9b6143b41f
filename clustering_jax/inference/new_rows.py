"""Reads new examples for a trained model: images, views, embeddings, or images that are embedded first."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from clustering_jax.data.embeddings import MANIFEST, embeddings, unit_rows
from clustering_jax.data.images.folder import iter_images
from clustering_jax.data.images.for_embedding import image_rows
from clustering_jax.data.views.new_rows import new_rows
from clustering_jax.errors import UserError
from clustering_jax.inference.embedding import iter_embedded
from clustering_jax.inference.image_model import image_model_of
from clustering_jax.inference.predictor import Predictor
from clustering_jax.inference.results import assignment_lines


def lines(predictor: Predictor, path: str | Path, chunk: int, views: Sequence[int] = ()) -> Iterator[str]:
    """Yields the assignments of new examples as CSV text, with a header.

    Args:
      predictor: the trained model.
      path: the new examples, of the kind that the model was trained on.
      chunk: largest number of images at a time.
      views: which of the run's views `path` holds, from 0 and increasing; () is all.

    Raises:
      UserError: the examples can't be read, or are of another kind than the training data.
    """
    yield from assignment_lines([], np.zeros((0, 1)), predictor.names, header=True)
    for ids, features in examples(predictor, path, chunk, views):
        yield from assignment_lines(ids, predictor.predict_proba(features), predictor.names, header=False)


def examples(
    predictor: Predictor, path: str | Path, chunk: int, views: Sequence[int] = ()
) -> Iterator[tuple[list[str], dict[str, np.ndarray]]]:
    """Yields new examples as features for a predictor. The arguments and errors are those of `lines`.

    Yields:
      ``(ids, features)``: up to `chunk` images at a time; views all at once.
    """
    if len(predictor.shapes.get("image", ())) == 1:
        yield from _embeddings(predictor, Path(path))
        return
    if "image" in predictor.shapes:
        on_error = predictor.config["data"].get("on_error", "error")
        for ids, images in iter_images(path, predictor.shapes["image"], chunk, on_error=on_error):
            yield ids, {"image": images}
        return
    if predictor.scalings is None:
        raise UserError("this run was trained on embedded or generated views: there are no files like them to assign")
    dataset = new_rows(path, predictor.config["data"], predictor.scalings, views)
    for note in dataset.notes:
        warnings.warn(note, stacklevel=2)
    yield dataset.ids, dataset.features


def _embeddings(predictor: Predictor, path: Path) -> Iterator[tuple[list[str], dict[str, np.ndarray]]]:
    """Yields ``(ids, features)`` of stored embeddings, or of images that the model of the run embeds first."""
    data, embed = predictor.config["data"], predictor.config["embed"]
    parts: Iterator[tuple[list[str], np.ndarray]]
    if not path.expanduser().is_dir() or (path.expanduser() / MANIFEST).is_file():
        keys = {name: data[name] for name in ("image_key",) if name in data}
        dataset = embeddings(path, split="all" if path.is_file() else data["split"], **keys)
        parts = iter([(dataset.ids, dataset.features["image"])])
    elif model := image_model_of(predictor.config):
        parts = iter_embedded(image_rows("folder", path=path), model, embed["batch_size"])
    else:
        raise UserError(f"{path}: the run was trained on embeddings without a model: give embeddings of the same kind")
    for ids, rows in parts:
        rows = unit_rows(rows, str(path))
        if rows.shape[1:] != predictor.shapes["image"]:
            width = predictor.shapes["image"][0]
            raise UserError(f"{path} has embeddings of {rows.shape[1]} columns, the run was trained on {width}")
        yield ids, {"image": rows}
