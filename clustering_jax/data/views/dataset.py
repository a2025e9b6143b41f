"""Multi-view data sets: each object has a row of numbers in each view, and some views of an object may be missing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.data.views.checked import ReadOptions, Views, load_views, zero_missing_rows
from clustering_jax.data.views.files import Paths, names
from clustering_jax.data.views.pca import fit_components, project
from clustering_jax.data.views.scaling import LARGEST, SCALINGS, apply_scaling, fit_scaling
from clustering_jax.errors import UserError, nearest


def multiview(
    path: Paths,
    *,
    views: str | Sequence[str] = (),
    label_key: str = "",
    mask_key: str = "",
    scaling: str | Sequence[str] = "none",
    missing: str = "error",
    transpose: bool = False,
) -> Dataset:
    """Reads views from files and scales them.

    Sparse arrays become dense, and arrays with more than two dimensions, such as images, become rows. In a CSV, the
    first line may hold names, the index of pandas is dropped, and empty cells are NaN.

    Args:
      path: one `.npz` or `.mat` file with all views; or one file per view: `.npy`, `.csv`, `.parquet`, a `.npz` of
        `scipy.sparse.save_npz`, or a `.npz` or `.mat` with one array. Give the latter as a folder, whose files are read
        in natural order, as a sequence, or as a string with commas.
      views: keys of the file, or file names in the folder, in the order of the views. The name of a MATLAB cell array
        or struct stands for all that it holds; ``"img.mat:img"`` is one of several arrays of a file in a folder. ()
        takes all files of a folder; of one file it takes view0, view1, ... or X1, X2, ... or the cells of X.
      label_key: key or file of the labels: integers, of which negative ones mean "no label", or text, which becomes its
        rank. "" reads no labels.
      mask_key: key or file of the mask: [n, views] of 0 and 1, with columns in the order of `views`. "" reads no mask.
      scaling: one of `SCALINGS` for all views, or one per view; see `apply_scaling`.
      missing: "error"; or "nan", if a view is missing in the rows in which all its values are NaN.
      transpose: whether the objects are the columns of the files, as often in MATLAB. It affects arrays with two
        dimensions only.

    Returns:
      Features "view0", "view1", ..., float32 [n, d_v]; rows of missing views are zeros. If some are missing, "mask",
      bool [n, views], is True where the object has the view. `scalings` holds what `apply_scalings` needs for new rows.

    Raises:
      UserError: something is missing, damaged, not numeric, not finite, too large, constant, or of a wrong shape.
    """
    return small_enough(_read_scaled(path, ReadOptions(views, label_key, mask_key, missing, transpose), scaling))


def multiview_pca(
    path: Paths,
    *,
    width: int = 100,
    views: str | Sequence[str] = (),
    label_key: str = "",
    mask_key: str = "",
    scaling: str | Sequence[str] = "none",
    missing: str = "error",
    transpose: bool = False,
) -> Dataset:
    """Reads views as `multiview` does, and projects each view on its principal components.

    All views get the same number of components, for methods whose views share one network.

    Args:
      path: as for `multiview`.
      width: the most principal components, at least 1; see `common_width`.
      views: as for `multiview`.
      label_key: as for `multiview`.
      mask_key: as for `multiview`.
      scaling: as for `multiview`.
      missing: as for `multiview`.
      transpose: as for `multiview`.

    Returns:
      The data set. Its `scalings` also hold the components, for new rows.

    Raises:
      UserError: as `multiview`; or `width` is below 1.
    """
    if width < 1:
        raise UserError(f"width is {width}: choose 1 or more principal components")
    dataset = _read_scaled(path, ReadOptions(views, label_key, mask_key, missing, transpose), scaling)
    return project(dataset._replace(scalings=fit_components(dataset, width)))


def small_enough(dataset: Dataset) -> Dataset:
    """Returns the data set.

    Raises:
      UserError: a number of a scaled view is so large that distances overflow float32.
    """
    for name in dataset.scalings or {}:
        view = dataset.features[name]
        if max(view.max(), -view.min()) > LARGEST:
            row, column = np.argwhere(np.abs(view) > LARGEST)[0]
            raise UserError(
                f"{dataset.name} {name} row {row}, column {column} is {view[row, column]:g} after scaling, and "
                f"distances of numbers above {LARGEST:g} overflow float32: divide the view by a number, or set scaling "
                "to minmax or standard"
            )
    return dataset


def _read_scaled(path: Paths, options: ReadOptions, scaling: str | Sequence[str]) -> Dataset:
    """Returns the scaled views of the training data."""
    views = load_views(path, options)
    if isinstance(path, str | Path) and os.path.isdir(os.path.expanduser(path)) and not names(options.views):
        shapes = (f"{Path(o).name} {list(a.shape)}" for o, a in zip(views.origins, views.arrays, strict=True))
        views = views._replace(notes=(f"{path}: the views are {', '.join(shapes)}", *views.notes))
    if not views.view_mask.any(0).all():
        raise UserError(f"{views.origins[views.view_mask.any(0).argmin()]} is missing in every row: leave the view out")
    dataset = apply_scalings(views, fit_scalings(views, scaling))
    notes = tuple(
        filter(None, (_constant_note(views, v, dataset.features[f"view{v}"]) for v in range(len(views.arrays))))
    )
    return dataset._replace(notes=views.notes + notes)


def fit_scalings(views: Views, scaling: str | Sequence[str] = "none") -> dict[str, dict[str, Any]]:
    """Fits the scaling of each view on the rows that have the view.

    Args:
      views: the training rows.
      scaling: one of `SCALINGS` for all views, or one per view.

    Returns:
      ``{"view0": {"kind": "minmax", ...}, ...}``: numbers, strings and lists, which JSON keeps exactly.

    Raises:
      UserError: a scaling is unknown, their number is wrong, or "tfidf" gets negative numbers.
    """
    kinds = names(scaling)
    kinds = kinds * len(views.arrays) if len(kinds) == 1 else kinds
    if len(kinds) != len(views.arrays):
        raise UserError(f"scaling names {len(kinds)} for {len(views.arrays)} views: give one, or one a view")
    scalings = {}
    for v, (kind, array, origin) in enumerate(zip(kinds, views.arrays, views.origins, strict=True)):
        if kind not in SCALINGS:
            raise UserError(f"unknown scaling '{kind}'{nearest(kind, SCALINGS)}")
        if kind == "tfidf" and array.min() < 0:
            row, column = np.argwhere(array < 0)[0]
            raise UserError(
                f"{origin} row {row}, column {column} is {array[row, column]}: tfidf needs counts, not below 0"
            )
        stats = fit_scaling(kind, array, views.view_mask[:, v])
        scalings[f"view{v}"] = {"kind": kind, "columns": array.shape[1], **{k: s.tolist() for k, s in stats.items()}}
    return scalings


def apply_scalings(views: Views, scalings: Mapping[str, Mapping[str, Any]]) -> Dataset:
    """Scales views, which may be new rows, by the scalings that were fitted on the training data.

    Args:
      views: as many views as there are scalings.
      scalings: fitted scaling of each view. It may leave out some of the training's views; the features then have the
        numbers of the others.

    Returns:
      The data set as `multiview` returns it.

    Raises:
      UserError: the number of views, or of the columns of a view, differs from the training data.
    """
    if len(scalings) != len(views.arrays):
        raise UserError(f"{views.name} has {len(views.arrays)} views, the training data had {len(scalings)}")
    features = {}
    numbers = sorted(int(name.removeprefix("view")) for name in scalings)
    for v, (number, array) in enumerate(zip(numbers, views.arrays, strict=True)):
        fitted = scalings[f"view{number}"]
        columns = fitted["columns"]
        if array.shape[1] != columns:
            raise UserError(f"{views.origins[v]} has {array.shape[1]} columns, the training data had {columns}")
        stats = {name: np.asarray(value) for name, value in fitted.items() if name not in ("kind", "columns")}
        rows = apply_scaling(fitted["kind"], stats, array)
        features[f"view{number}"] = zero_missing_rows(rows, views.view_mask[:, v])
    n = len(views.view_mask)
    if not views.view_mask.all():
        features["mask"] = np.ones((n, numbers[-1] + 1), bool)
        features["mask"][:, numbers] = views.view_mask
    return Dataset(features, row_ids(n), views.labels, views.name, "all", views.notes, dict(scalings))


def _constant_note(views: Views, v: int, scaled: np.ndarray) -> str:
    """Returns a note on the constant columns of a view, "" if there are none.

    Args:
      views: the rows as they were read.
      v: number of the view.
      scaled: the view as it is trained on, in float32, where numbers that differ little may be one.

    Raises:
      UserError: the whole view is constant.
    """
    row_mask, origin = views.view_mask[:, v], views.origins[v]
    low, high = _extremes(views.arrays[v], row_mask)
    if low.min() == high.max():
        raise UserError(f"{origin} is {low[0]} everywhere: leave the view out")
    scaled_low, scaled_high = _extremes(scaled, row_mask)
    if scaled_low.min() == scaled_high.max():
        raise UserError(f"{origin} is {scaled_low[0]:g} everywhere in float32: set scaling to minmax or standard")
    count, lost = int((low == high).sum()), int(((scaled_low == scaled_high) & (low != high)).sum())
    note = f"{origin}: {count} of {len(low)} columns are constant" if count else ""
    rounded = f"{origin}: {lost} of {len(low)} columns are one number in float32, set scaling to minmax or standard"
    return "; ".join(filter(None, (note, rounded if lost else "")))


def _extremes(array: np.ndarray, row_mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = array if row_mask.all() else array[row_mask]
    return rows.min(0), rows.max(0)
