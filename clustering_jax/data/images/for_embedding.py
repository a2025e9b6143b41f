"""Images one by one as their files have them, for models with a preprocessing of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from clustering_jax.data.images.decode import read_image
from clustering_jax.data.images.folder import listed
from clustering_jax.data.sources import load
from clustering_jax.errors import UserError, check_keywords

Fit = Callable[[Image.Image], np.ndarray]


class ImageRows(NamedTuple):
    """Images that are read when they are wanted.

    read: ``(row, fit) -> what fit makes of the PIL image``, or in one line why there is none. skip: such rows are to be
    left out; otherwise they are an error. ids, labels, name, split, notes: as in `Dataset`.
    """

    read: Callable[[int, Fit], np.ndarray | str]
    ids: list[str]
    labels: np.ndarray | None
    name: str
    split: str
    notes: tuple[str, ...] = ()
    skip: bool = False

    def batch(self, start: int, stop: int, fit: Fit) -> list[np.ndarray | str]:
        """Rows `start` to `stop`, read by threads; UserError at the first that can't be, unless they are skipped."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(lambda row: self.read(row, fit), range(start, stop)))
        failures = [f for f in found if isinstance(f, str)]
        if failures and not self.skip:
            raise UserError(f"{failures[0]}; remove it, or set on_error to skip")
        return found


def image_rows(source: str = "", **options: Any) -> ImageRows:
    """The images of a data source: "folder" (with the settings of `folder_rows`), or one that `load` knows.

    Raises:
      UserError: as the source raises.
    """
    if source == "folder":
        check_keywords(folder_rows, options, "data source 'folder'")
        if "path" not in options:
            raise UserError("data source 'folder' needs the setting 'path'")
        return folder_rows(**options)
    found = load(source, **options)
    images = found.features.get("image")
    if images is None or images.ndim != 4:
        raise UserError(f"data source '{source}' has no images to embed")

    def read(row: int, fit: Fit) -> np.ndarray:
        image = np.asarray(images[row])
        return fit(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image))

    return ImageRows(read, found.ids, found.labels, found.name, found.split, found.notes)


def folder_rows(
    path: str | Path,
    *,
    labels_from_folders: bool = False,
    on_error: str = "error",
    classes: str | Sequence[str] = (),
    expected_count: int = 0,
) -> ImageRows:
    """The image files below a folder, with the settings and errors of `images.folder`."""
    root, names, labels, notes = listed(path, classes, expected_count, labels_from_folders, on_error)

    def read(row: int, fit: Fit) -> np.ndarray | str:
        return read_image(root / names[row], fit)

    return ImageRows(read, names, labels, root.resolve().name, "all", notes, on_error == "skip")
