"""What a path holds, so that the message about a wrong data source can name the right config and estimator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from clustering_jax.data.images.arrays import stored_shapes
from clustering_jax.data.images.listing import EXTENSIONS, walk
from clustering_jax.errors import UserError

# Files of a folder that are looked at.
LOOK = 1000
FEATURES, IMAGES, PHOTOS = "features [n, d]", "images [n, h, w, c]", "photos"
ADVICE = {
    FEATURES: "--config=turtle_embeddings, or FeatureClustering in Python",
    IMAGES: "--config=cc_arrays, or FeatureClustering in Python, which embeds them first",
    PHOTOS: "--config=photos, or FeatureClustering in Python",
}
# What the sources read; the views of the other sources are of any kind but photos and images.
TAKES = {"arrays": IMAGES, "embeddings": FEATURES, "folder": PHOTOS, "photos": PHOTOS}
SOURCES = (*TAKES, "multiview", "multiview_pca")


def kind_of(path: Any) -> str:
    """A key of `ADVICE`, or "" where it is not clear.

    Args:
      path: a file or a folder; anything else has no kind.
    """
    if not isinstance(path, str | Path) or not str(path):
        return ""
    with suppress(OSError, ValueError, UserError):
        file = Path(path).expanduser()
        if file.is_dir():
            return PHOTOS if any(f.suffix.lower() in EXTENSIONS for f in islice(walk(file, []), LOOK)) else ""
        return _kind_of_arrays(stored_shapes(file))
    return ""


def _kind_of_arrays(arrays: dict[str, tuple[tuple[int, ...], np.dtype]]) -> str:
    """The kind of a file's arrays: images where there are any, features where the only matrix has floats."""
    if any(len(shape) in (3, 4) and dtype.kind in "uf" for shape, dtype in arrays.values()):
        return IMAGES
    matrices = [dtype for shape, dtype in arrays.values() if len(shape) == 2]
    return FEATURES if len(matrices) == 1 and matrices[0].kind == "f" else ""


@contextmanager
def right_source(source: str, path: Any) -> Iterator[None]:
    """Adds to a `UserError` of a source which config is right, if the path holds data of another kind.

    Args:
      source: name of the data source.
      path: its setting `path`, or None.
    """
    try:
        yield
    except UserError as error:
        kind = kind_of(path) if source in SOURCES else ""
        if not kind or kind == TAKES.get(source) or (kind == FEATURES and source not in TAKES):
            raise
        if "--config=" in str(error):
            raise
        raise UserError(f"{error}; {path} holds {kind}: use {ADVICE[kind]}") from error
