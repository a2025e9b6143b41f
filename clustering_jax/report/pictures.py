"""The pictures of a run's rows: the images themselves, or thumbnails of the files that were embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from clustering_jax.data.base import Dataset
from clustering_jax.data.images.decode import PICTURE_FORMATS

SIDE = 96


class Thumbnails:
    """Thumbnails of image files, read one by one.

    Args:
      paths: the file of each row.
    """

    def __init__(self, paths: Sequence[Path]):
        self._paths = paths
        self.shape = (len(paths), SIDE, SIDE, 3)

    def __getitem__(self, row: int) -> np.ndarray:
        """The centre of the picture, uint8 [side, side, 3]; grey where the file can't be read any more."""
        try:
            return _thumbnail(self._paths[row])
        # Decoders of broken files raise nearly anything.
        except Exception:
            return np.full(self.shape[1:], 136, np.uint8)


def _thumbnail(path: Path) -> np.ndarray:
    with Image.open(path, formats=PICTURE_FORMATS) as image:
        image.draft("RGB", (2 * SIDE, 2 * SIDE))  # large JPEG files are decoded at a fraction of their size
        side = min(SIDE, *image.size)
        return np.asarray(ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (side, side)))


def folder_of(config: Mapping[str, Any], dataset: Dataset | None) -> Path | None:
    """Finds the directory of the files of the rows.

    Args:
      config: the config of the run.
      dataset: the scored data, or None.

    Returns:
      The directory, below which the ids name files; None if the rows come from no files, or these are gone.
    """
    if dataset is None:
        return None
    source = config["scored"] or config["data"]
    embedded = config.get("embed", {}).get("splits", {}).get(source.get("split", ""), {})
    folder: Mapping[str, Any] = next((each for each in (source, embedded) if each.get("source") == "folder"), {})
    root = Path(folder.get("path", "")).expanduser()
    return root.resolve() if folder and root.is_dir() else None


def pictures_of(config: Mapping[str, Any], dataset: Dataset | None) -> Any:
    """Finds a picture for each row.

    Args:
      config: the config of the run.
      dataset: the scored data, or None.

    Returns:
      An array or `Thumbnails` of the shape [n, h, w, c]; None if there are no pictures.
    """
    images = dataset.features.get("image") if dataset else None
    if getattr(images, "ndim", 0) == 4:
        return images
    root = folder_of(config, dataset)
    return Thumbnails([root / name for name in dataset.ids]) if dataset and root else None
