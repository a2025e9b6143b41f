"""The pictures of a run's rows: the images themselves, or thumbnails of the files that were embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from clustering_jax.data.base import Dataset
from clustering_jax.data.images.decode import read_image

SIDE = 64


class Thumbnails:
    """Thumbnails of image files, read one by one.

    Args:
      paths: the file of each row.
    """

    def __init__(self, paths: Sequence[Path]):
        self._paths = paths
        self.shape = (len(paths), SIDE, SIDE, 3)

    def __getitem__(self, row: int) -> np.ndarray:
        """The centre of the picture, uint8 [SIDE, SIDE, 3]; grey where the file can't be read any more."""
        picture = read_image(self._paths[row], _thumbnail)
        return np.full(self.shape[1:], 136, np.uint8) if isinstance(picture, str) else picture


def _thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (SIDE, SIDE)))


def pictures_of(config: Mapping[str, Any], dataset: Dataset | None) -> Any:
    """Finds a picture for each row.

    Args:
      config: the config of the run.
      dataset: the scored data, or None.

    Returns:
      An array or `Thumbnails` of the shape [n, h, w, c]; None if there are no pictures.
    """
    if dataset is None:
        return None
    images = dataset.features.get("image")
    if getattr(images, "ndim", 0) == 4:
        return images
    split = (config["scored"] or config["data"]).get("split", "")
    folder = config.get("embed", {}).get("splits", {}).get(split, {})
    root = Path(folder.get("path", "")).expanduser()
    if folder.get("source") != "folder" or not root.is_dir():
        return None
    return Thumbnails([root / name for name in dataset.ids])
