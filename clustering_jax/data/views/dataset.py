"""Objects seen in several views, a row of numbers in each; a view of an object may be missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.data.views.checked import Views, load_views, zeroed
from clustering_jax.data.views.files import Source, names, open_source
from clustering_jax.data.views.scaling import SCALINGS, apply_scaling, fit_scaling
from clustering_jax.errors import UserError, nearest


def multiview(
    path: str | Path | Sequence[str | Path],
    *,
    views: str | Sequence[str] = (),
    label_key: str = "",
    mask_key: str = "",
    scaling: str | Sequence[str] = "none",
    missing: str = "error",
    transpose: bool = False,
) -> Dataset:
    """Views of files, scaled: float32 [n, d_v] "view0", "view1", ..., and where some are missing, "mask".

    "mask" is bool [n, views], True where the object has the view; rows of missing views are zeros.

    Args:
      path: a `.npz` or `.mat` file; or one file a view, `.npy`, `.csv`, `.parquet`, a `.npz` of
        `scipy.sparse.save_npz`, or a `.npz` or `.mat` of one array: a folder of them in natural order, or several
        files as a sequence or a string with commas. A CSV's first line may be names; pandas' index is left out;
        empty cells are NaN. Arrays of a rank above 2, images say, become rows. Sparse ones become dense.
      views: keys of the file, or file names in the folder, in the order wanted; a cell array or struct of MATLAB
        stands for all it holds. () is all files, or view0, view1, ... or X1, X2, ... or the cells of X. Of a file in a
        folder that holds several arrays, "img.mat:img" is one.
      label_key: key, or a file, of labels: integers as they are (a negative one is none), or text as ranks.
      mask_key: key, or a file, of the mask: [n, views] of 0 and 1, columns in the order of `views`.
      scaling: of `SCALINGS` (see `apply_scaling`), one for all views or one a view.
      missing: "error", or "nan": a view is missing in the rows where all of it is NaN.
      transpose: objects are columns in the files, as often in MATLAB; for arrays of rank 2.

    Returns:
      The data set; `scalings` holds what new rows are scaled by, see `scaled`.

    Raises:
      UserError: something is missing, damaged, no numbers, not finite, constant, or of a wrong shape.
    """
    found = load_views(
        path,
        views=views,
        label_key=label_key,
        mask_key=mask_key,
        missing=missing,
        transpose=transpose,
    )
    if not found.present.any(0).all():
        raise UserError(f"{found.origins[found.present.any(0).argmin()]} is missing in every row: leave the view out")
    notes = tuple(filter(None, (_constant_note(found, v) for v in range(len(found.arrays)))))
    return scaled(found._replace(notes=found.notes + notes), fit_scalings(found, scaling))


def fit_scalings(views: Views, scaling: str | Sequence[str] = "none") -> dict[str, dict[str, Any]]:
    """What `scaled` needs, of the rows that have the view: ``{"view0": {"kind": "minmax", ...}, ...}``.

    Plain numbers, strings and lists, which JSON keeps exactly.

    Raises:
      UserError: an unknown scaling, too many or too few, or negative numbers where "tfidf" needs counts.
    """
    kinds = names(scaling)
    kinds = kinds * len(views.arrays) if len(kinds) == 1 else kinds
    if len(kinds) != len(views.arrays):
        raise UserError(f"scaling names {len(kinds)} for {len(views.arrays)} views: give one, or one a view")
    found = {}
    for v, (kind, array, origin) in enumerate(zip(kinds, views.arrays, views.origins, strict=True)):
        if kind not in SCALINGS:
            raise UserError(f"unknown scaling '{kind}'{nearest(kind, SCALINGS)}")
        if kind == "tfidf" and array.min() < 0:
            row, column = np.argwhere(array < 0)[0]
            raise UserError(
                f"{origin} row {row}, column {column} is {array[row, column]}: tfidf needs counts, not below 0"
            )
        stats = fit_scaling(kind, array, views.present[:, v])
        found[f"view{v}"] = {"kind": kind, "columns": array.shape[1], **{k: s.tolist() for k, s in stats.items()}}
    return found


def scaled(views: Views, scalings: Mapping[str, Mapping[str, Any]]) -> Dataset:
    """The data set that `multiview` makes of `views`, which may be new rows, with the `scalings` of the training.

    `scalings` may be those of some of the training's views only, which then are the features.

    Raises:
      UserError: `views` are not as many or not as wide as those that were fitted.
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
        features[f"view{number}"] = zeroed(apply_scaling(fitted["kind"], stats, array), views.present[:, v])
    if not views.present.all():
        features["mask"] = np.ones((len(views.present), numbers[-1] + 1), bool)
        features["mask"][:, numbers] = views.present
    n = len(views.present)
    return Dataset(features, row_ids(n), views.labels, views.name, "all", views.notes, dict(scalings))


def new_rows(
    path: str | Path | Source,
    options: Mapping[str, Any],
    scalings: Mapping[str, Mapping[str, Any]],
    numbers: Sequence[int] = (),
) -> Dataset:
    """New objects for a model that was trained on `multiview` with `options`, scaled as the training data was.

    Args:
      path: as for `multiview`, or arrays in memory; labels in it are passed over. options: of the training; where
        they name views or a mask, the same are read, but nothing from outside of `path`. scalings: of the training
        data. numbers: which of its views `path` holds, from 0 and rising; () is all.

    Raises:
      UserError: as `multiview`; a number that is no view of the training, or out of order.
    """
    wrong = [v for v in numbers if f"view{v}" not in scalings]
    if wrong:
        raise UserError(f"there is no view {wrong[0]}: the training data had views 0 to {len(scalings) - 1}")
    if list(numbers) != sorted(set(numbers)):
        raise UserError(f"views {', '.join(map(str, numbers))}: name each once, in rising order, and files likewise")
    numbers = list(numbers) or list(range(len(scalings)))
    keys = names(options.get("views", ()))
    keys = [keys[v] for v in numbers] if len(keys) == len(scalings) else keys
    source = path if isinstance(path, Source) else open_source(path)
    mask, notes = source.find(options.get("mask_key", "")), ()
    kept = {k: options[k] for k in ("missing", "transpose") if k in options}
    if options.get("mask_key") and not mask:
        notes = (f"{source.name} has no mask '{options['mask_key']}': views are missing in rows of NaN alone",)
        kept["missing"] = "nan"
    labels = source.holder(source.find(options.get("label_key", "")))
    if keys:
        keys = _new_keys(source, keys, {labels, source.holder(mask)})
    elif labels != source.holder(mask):
        source = source._replace(readers={key: read for key, read in source.readers.items() if key != labels})
    views = load_views(source, views=keys, allow_single=True, mask_key=mask, mask_columns=numbers, **kept)
    return scaled(views._replace(notes=views.notes + notes), {f"view{v}": scalings[f"view{v}"] for v in numbers})


def _new_keys(source: Source, keys: list[str], others: set[str]) -> list[str]:
    """What the views `keys` of the training are called in `source`; others: readers that are no views."""
    found = [source.find(key) for key in keys]
    if not any(found) and _one_by_one(source):
        # Files of other names go by their order.
        return [key for key in source.readers if key not in others]
    return [new or key for new, key in zip(found, keys, strict=True)]


def _one_by_one(source: Source) -> bool:
    """Whether it is files that each hold one array without a key, not a folder."""
    if source.keyed:
        return list(source.readers) == [Path(source.name).name]
    return not Path(source.name).expanduser().is_dir()


def _constant_note(views: Views, v: int) -> str:
    """How many columns of a view are constant, "" for none; a view that is constant as a whole is an error."""
    array, present = views.arrays[v], views.present[:, v]
    rows = array if present.all() else array[present]
    low, high = rows.min(0), rows.max(0)
    if low.min() == high.max():
        raise UserError(f"{views.origins[v]} is {low[0]} everywhere: leave the view out")
    count = int((low == high).sum())
    return f"{views.origins[v]}: {count} of {len(low)} columns are constant" if count else ""
