"""Reads images one by one at their stored size, for models with their own preprocessing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from clustering_jax.data.base import Dataset
from clustering_jax.data.identity import files_digest, identity
from clustering_jax.data.images.decode import read_image
from clustering_jax.data.images.listing import list_images
from clustering_jax.data.kinds import right_source
from clustering_jax.data.sources import load
from clustering_jax.errors import UserError, check_keywords

Fit = Callable[[Image.Image], np.ndarray]


class ImageRows(NamedTuple):
    """Images that are read on demand.

    Attributes:
      read: ``(row, fit) -> fit(image)`` for the PIL image of that row; or, if it is unreadable, a line that says why.
      ids: n strings, as in `Dataset`.
      labels: int [n] or None, as in `Dataset`.
      name: name of the data set.
      split: name of the split.
      notes: messages for the user, one line each.
      skip: whether to leave unreadable images out. Otherwise they are an error.
      mark: a digest of the images: of their files' names, sizes and times, or of the pixels in memory.
    """

    read: Callable[[int, Fit], np.ndarray | str]
    ids: list[str]
    labels: np.ndarray | None
    name: str
    split: str
    notes: tuple[str, ...] = ()
    skip: bool = False
    mark: Callable[[], str] = str

    def batch(self, start: int, stop: int, fit: Fit) -> list[np.ndarray | str]:
        """Reads rows `start` to `stop` with threads.

        Args:
          start: the first row.
          stop: one after the last row.
          fit: what to apply to each image.

        Returns:
          What `read` returns for each row.

        Raises:
          UserError: a row is unreadable, and unreadable rows are not skipped.
        """
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(lambda row: self.read(row, fit), range(start, stop)))
        failures = [result for result in results if isinstance(result, str)]
        if failures and not self.skip:
            raise UserError(f"{failures[0]}; remove it, or set on_error to skip")
        return results


def image_rows(source: str = "", **options: Any) -> ImageRows:
    """Returns the images of a data source.

    Args:
      source: "folder", or a source that `clustering_jax.data.load` knows.
      options: settings of `folder_rows`, or of the source.

    Raises:
      UserError: as the source raises; or the source has no images.
    """
    if source == "folder":
        check_keywords(folder_rows, options, "data source 'folder'")
        if "path" not in options:
            raise UserError("data source 'folder' needs the setting 'path'")
        with right_source(source, options["path"]):
            return folder_rows(**options)
    dataset = load(source, **options)
    images = dataset.features.get("image")
    if images is None or images.ndim != 4:
        raise UserError(f"data source '{source}' has no images to embed")
    return array_rows(dataset)


def array_rows(dataset: Dataset) -> ImageRows:
    """Returns the images of a data set, features ``{"image": uint8 [n, h, w, c]}``."""
    images = dataset.features["image"]

    def read(row: int, fit: Fit) -> np.ndarray:
        image = np.asarray(images[row])
        return fit(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image))

    mark = partial(_mark, dataset)
    return ImageRows(read, dataset.ids, dataset.labels, dataset.name, dataset.split, dataset.notes, mark=mark)


def _mark(dataset: Dataset) -> str:
    return identity(dataset)["image"]


def folder_rows(
    path: str | Path,
    *,
    labels_from_folders: bool = False,
    on_error: str = "error",
    classes: str | Sequence[str] = (),
    expected_count: int = 0,
) -> ImageRows:
    """Returns the image files below a folder.

    Args:
      path: the folder.
      labels_from_folders: take the topmost folders, in natural order, as labels. Otherwise there are no labels.
      on_error: "error" stops at an unreadable image; "skip" leaves it out.
      classes: keep only these class folders: a list, or a name in `clustering_jax.data.images.synsets.SYNSETS`.
      expected_count: number of images that must be there; 0 accepts any number.

    Raises:
      UserError: as `clustering_jax.data.images.folder.folder`.
    """
    root, names, labels, notes = list_images(path, classes, expected_count, labels_from_folders, on_error)

    def read(row: int, fit: Fit) -> np.ndarray | str:
        return read_image(root / names[row], fit)

    mark = partial(files_digest, root, names, times=True)
    return ImageRows(read, names, labels, root.resolve().name, "all", notes, on_error == "skip", mark)
