"""New examples for a trained model: images as a stream, views scaled as in training, embeddings, or images embedded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from clustering_jax.data.embeddings import MANIFEST, embeddings, unit_rows
from clustering_jax.data.images.folder import iter_images
from clustering_jax.data.views.dataset import new_rows
from clustering_jax.data.views.pca import projected
from clustering_jax.errors import UserError
from clustering_jax.inference.embedding import iter_embedded
from clustering_jax.inference.predictor import Predictor
from clustering_jax.inference.results import assignment_lines


def lines(predictor: Predictor, path: str | Path, chunk: int, views: Sequence[int] = ()) -> Iterator[str]:
    """The CSV of `path`'s examples, `chunk` rows at a time; views: which of the run's views it has, () is all."""
    yield from assignment_lines([], np.zeros((0, 1)), predictor.names, header=True)
    for ids, features in examples(predictor, path, chunk, views):
        yield from assignment_lines(ids, predictor.predict_proba(features), predictor.names, header=False)


def examples(
    predictor: Predictor, path: str | Path, chunk: int, views: Sequence[int] = ()
) -> Iterator[tuple[list[str], dict[str, np.ndarray]]]:
    """``(ids, features)`` of up to `chunk` rows of images, of all rows of others; arguments as for `lines`."""
    if len(predictor.shapes.get("image", ())) == 1:
        yield from _embeddings(predictor, Path(path))
        return
    if "image" in predictor.shapes:
        for ids, images in iter_images(path, predictor.shapes["image"], chunk):
            yield ids, {"image": images}
        return
    if predictor.scalings is None:
        raise UserError("this run was trained on embedded or generated views: there are no files like them to assign")
    found = projected(new_rows(path, predictor.config["data"], predictor.scalings, views))
    for note in found.notes:
        warnings.warn(note, stacklevel=2)
    yield found.ids, found.features


def _embeddings(predictor: Predictor, path: Path) -> Iterator[tuple]:
    """``(ids, features)`` of a file or directory of embeddings, or of images, embedded by the run's own model."""
    known, made = predictor.config["data"], predictor.config["embed"]
    if not path.expanduser().is_dir() or (path.expanduser() / MANIFEST).is_file():
        keys = {name: known[name] for name in ("image_key",) if name in known}
        found = embeddings(path, split="all" if path.is_file() else known["split"], **keys)
        parts = iter([(found.ids, found.features["image"])])
    elif made["clip"]:
        parts = iter_embedded(path, **{name: made[name] for name in ("clip", "resize", "batch_size")})
    else:
        raise UserError(f"{path}: the run was trained on embeddings without a model: give embeddings of the same kind")
    for ids, rows in parts:
        rows = unit_rows(rows, str(path))
        if rows.shape[1:] != predictor.shapes["image"]:
            wanted = predictor.shapes["image"][0]
            raise UserError(f"{path} has embeddings of {rows.shape[1]} columns, the run was trained on {wanted}")
        yield ids, {"image": rows}
