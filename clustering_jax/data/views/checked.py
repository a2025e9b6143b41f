"""Reads views from their source unscaled and checks them; also which views are missing, and the labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from clustering_jax.data.claims import SPARSE, checked_sparse
from clustering_jax.data.labels import named_as_labels, read_labels
from clustering_jax.data.views.files import Paths, Source, names, natural, open_source
from clustering_jax.errors import UserError

# Patterns of the keys that are the views of a file, if the user names no views.
VIEW_KEYS = (r"view\d+", r"X\d+", r"X\{\d+\}")
# Bytes above which a sparse view that becomes dense is worth a note.
LARGE = 2**28


class ReadOptions(NamedTuple):
    """How to read views from files. These are settings of `clustering_jax.data.views.dataset.multiview`.

    Attributes:
      views: keys or file names of the views in order; () finds them.
      label_key: key or file of the labels; "" reads no labels.
      mask_key: key or file of the mask; "" reads no mask.
      missing: "error"; or "nan", if a view is missing in the rows in which all its values are NaN.
      transpose: whether the objects are the columns of the files.
    """

    views: str | Sequence[str] = ()
    label_key: str = ""
    mask_key: str = ""
    missing: str = "error"
    transpose: bool = False


DEFAULTS = ReadOptions()


class Views(NamedTuple):
    """Checked views, not yet scaled.

    Attributes:
      arrays: one array [n, d_v] per view, of any numeric type. The values are finite in float32; the rows of missing
        views are zeros.
      view_mask: bool [n, views], True where an object has the view. Each row has at least one True.
      origins: file and key of each view, for messages.
      labels: int64 [n] or None, as in `Dataset`.
      name: name of the files.
      notes: messages for the user, one line each.
    """

    arrays: list[np.ndarray]
    view_mask: np.ndarray
    origins: list[str]
    labels: np.ndarray | None
    name: str
    notes: tuple[str, ...]


def load_views(
    path: Paths | Source,
    options: ReadOptions = DEFAULTS,
    *,
    allow_single: bool = False,
    mask_columns: Sequence[int] = (),
) -> Views:
    """Reads views without scaling them. Unlike `multiview`, it accepts constant views and views without rows.

    Args:
      path: as for `multiview`, or an open source.
      options: how to read the views.
      allow_single: whether one view is enough.
      mask_columns: the columns of these views in a mask that has more columns than there are views; () is all.

    Raises:
      UserError: as `multiview`.
    """
    if options.missing not in ("error", "nan"):
        raise UserError(f"missing is '{options.missing}': choose 'error' or 'nan'")
    source = path if isinstance(path, Source) else open_source(path)
    keys = _view_keys(source, names(options.views), {options.label_key, options.mask_key})
    origins = [source.origin(key) for key in keys]
    if len(keys) < 2 and not allow_single:
        raise UserError(f"{origins[0]} is the only view: name two or more by path or views")
    dense = [_dense(source.read(key), o, options.transpose) for key, o in zip(keys, origins, strict=True)]
    arrays, notes = [array for array, _ in dense], tuple(note for _, note in dense if note)
    _check_lengths(arrays, origins)
    view_mask = _view_mask(source, options, arrays, mask_columns)
    arrays = [_finite(a, view_mask[:, v], origins[v]) for v, a in enumerate(arrays)]
    labels = _labels(source, options, arrays) if options.label_key else None
    files = [] if isinstance(path, Source) else names(path)
    name = "+".join(Path(file).expanduser().resolve().name for file in files) or source.name
    return Views(arrays, view_mask, origins, labels, name, notes + _row_notes(view_mask, labels))


def _labels(source: Source, options: ReadOptions, arrays: list[np.ndarray]) -> np.ndarray | None:
    n, values = len(arrays[0]), source.read_labels(options.label_key, len(arrays[0]))
    count = len(values) if isinstance(values, list) else int(np.prod(values.shape))
    if count != n and all(array.shape[1] == count for array in arrays):
        raise UserError(f"{source.name} has {n} rows and {count} labels: if objects are columns, set transpose")
    return read_labels(values, n, source.origin(options.label_key))


def _view_keys(source: Source, requested: list[str], others: set[str]) -> list[str]:
    """Returns the keys of the views. `others` are the keys of labels and mask."""
    others = {source.holder(key) for key in others}
    keys = [key for key in source.readers if key not in others]
    if requested:
        expanded = [key for name in requested for key in _expand(keys, name)]
        # Views come from this source alone: a view that new rows lack must not be read from the training folder.
        absent = next((key for key in expanded if source.holder(key) not in source.readers), None)
        if absent:
            raise source.absent(absent)
        return expanded
    matches = ([key for key in keys if re.fullmatch(pattern, key)] for pattern in VIEW_KEYS)
    several = source.keyed and len(source.readers) > 1
    view_keys = sorted(next(filter(None, matches), []), key=natural) if several else keys
    called = next((key for key in view_keys if not source.keyed and source.is_folder and named_as_labels(key)), None)
    if called:
        raise UserError(f"{source.name}: is {called} labels? set label_key={called}, or name all views in views")
    if not view_keys:
        raise UserError(f"{source.name} holds {', '.join(keys) or 'no views'}: name the arrays to use in views")
    return view_keys


def _expand(keys: list[str], name: str) -> list[str]:
    """Returns `name`, or all keys inside the cell array or struct of that name."""
    inside = [key for key in keys if re.match(re.escape(name) + r"[.{(]", key)]
    return inside if name not in keys and inside else [name]


def _dense(array: Any, origin: str, transpose: bool) -> tuple[np.ndarray, str]:
    """Returns ``(numbers [n, d], note)``. The note is "" if there is nothing to note."""
    sparse = scipy.sparse.issparse(array)
    array = checked_sparse(array if array.format in SPARSE else array.tocsr(), origin) if sparse else array
    size = int(np.prod(array.shape, dtype=object)) * array.dtype.itemsize
    note = f"{origin} is sparse, dense it takes {size / 2**20:.0f} MiB" if sparse and size > LARGE else ""
    array = array.toarray() if sparse else array
    if array.dtype.kind not in "biuf":
        raise UserError(f"{origin} is {array.dtype}, not numbers: save one numeric array a view")
    if array.ndim < 2:
        raise UserError(
            f"{origin} has shape {array.shape}: a view is [rows, columns], a single column [rows, 1]; "
            "if these are labels, name them by label_key"
        )
    array = array.T if transpose and array.ndim == 2 else array
    if 0 in array.shape:
        raise UserError(f"{origin} has shape {array.shape}: it is empty")
    array = array.astype(np.uint8) if array.dtype == bool else array
    return array.reshape(len(array), -1), note


def _check_lengths(arrays: list[np.ndarray], origins: list[str]) -> None:
    for array, origin in zip(arrays, origins, strict=True):
        if len(array) != len(arrays[0]):
            same_width = len({a.shape[1] for a in arrays}) == 1
            hint = "if objects are columns, set transpose"
            hint = hint if same_width else "a row must be the same object in every view"
            raise UserError(f"{origins[0]} has {len(arrays[0])} rows, {origin} has {len(array)}: {hint}")


def _view_mask(source: Source, options: ReadOptions, arrays: list[np.ndarray], columns: Sequence[int]) -> np.ndarray:
    """Returns which object has which view, bool [n, views]."""
    view_mask = np.ones((len(arrays[0]), len(arrays)), bool)
    if options.mask_key:
        view_mask &= _read_mask(source, options.mask_key, view_mask.shape, columns)
    if options.missing == "nan":
        view_mask &= ~np.stack([np.isnan(array).all(1) for array in arrays], 1)
    if not view_mask.any(1).all():
        raise UserError(f"{source.name} row {int(view_mask.any(1).argmin())} has no view at all: leave the row out")
    return view_mask


def _read_mask(source: Source, key: str, shape: tuple[int, ...], columns: Sequence[int]) -> np.ndarray:
    mask, origin = source.read(key), source.origin(key)
    mask = mask.toarray() if scipy.sparse.issparse(mask) else np.asarray(mask)
    if columns and mask.ndim == 2 and max(columns) < mask.shape[1] != shape[1]:
        mask = mask[:, list(columns)]
    if mask.shape != shape:
        raise UserError(f"{origin} has shape {mask.shape}: the mask of these views must be [rows, views], {shape}")
    if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
        raise UserError(f"{origin} must be of 0 and 1 (1 where the object has the view), or of booleans")
    return mask.astype(bool)


def _finite(array: np.ndarray, row_mask: np.ndarray, origin: str) -> np.ndarray:
    """Checks that the rows of `row_mask` are finite, and returns `array` with zeros in the other rows."""
    if array.dtype.kind != "f":
        return zero_missing_rows(array, row_mask)
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(np.asarray(array, np.float32)) & row_mask[:, None]
    if bad.any():
        row, column = np.argwhere(bad)[0]
        hint = "set missing to nan" if np.isnan(array[row]).all() else "correct it, or leave the row out"
        raise UserError(f"{origin} row {row}, column {column} is {array[row, column]:g}, not finite in float32: {hint}")
    return zero_missing_rows(array, row_mask)


def zero_missing_rows(array: np.ndarray, row_mask: np.ndarray) -> np.ndarray:
    """Sets the rows of a missing view to zero.

    Args:
      array: [n, d] numbers.
      row_mask: bool [n], True in the rows that have the view.

    Returns:
      [n, d]; `array` itself if no row lacks the view.
    """
    return array if row_mask.all() else np.where(row_mask[:, None], array, np.zeros((), array.dtype))


def _row_notes(view_mask: np.ndarray, labels: np.ndarray | None) -> tuple[str, ...]:
    n, incomplete = len(view_mask), int((~view_mask.all(1)).sum())
    unlabelled = 0 if labels is None else int((labels < 0).sum())
    return tuple(
        f"{count} of {n} objects {what}"
        for count, what in (
            (incomplete, "lack a view"),
            (unlabelled, "have no label, because it is negative or missing"),
        )
        if count
    )
