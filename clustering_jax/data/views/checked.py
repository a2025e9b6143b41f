"""Views as they are in files, checked; which of them are missing, and labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from clustering_jax.data.base import known_labels
from clustering_jax.data.views.files import Source, names, natural, open_source
from clustering_jax.errors import UserError

# The keys of a file that are its views if the user names none.
VIEW_KEYS = (r"view\d+", r"X\d+", r"X\{\d+\}")
LARGE = 2**28


class Views(NamedTuple):
    """Views as they are in the files, checked.

    arrays: [n, d_v] numbers of any type each, finite also as float32; rows of missing views are zeros.
    present: bool [n, views], True where an object has the view; no row without a True.
    origins: file and key of each view, for messages. labels: as in `Dataset`. name: of the files.
    notes: what the user should be told, one line each.
    """

    arrays: list[np.ndarray]
    present: np.ndarray
    origins: list[str]
    labels: np.ndarray | None
    name: str
    notes: tuple[str, ...]


def load_views(
    path: str | Path | Sequence[str | Path] | Source,
    *,
    views: str | Sequence[str] = (),
    label_key: str = "",
    mask_key: str = "",
    missing: str = "error",
    transpose: bool = False,
    allow_single: bool = False,
    mask_columns: Sequence[int] = (),
) -> Views:
    """The views as they are; arguments and errors of `multiview.multiview`, but constant views and absent ones pass.

    path: also arrays that are in memory. allow_single: whether one view is enough. mask_columns: of a mask that is
    wider than the views, those that are theirs; () is all.
    """
    if missing not in ("error", "nan"):
        raise UserError(f"missing is '{missing}': choose 'error' or 'nan'")
    source = path if isinstance(path, Source) else open_source(path)
    keys = _view_keys(source, names(views), {label_key, mask_key})
    origins = [source.origin(key) for key in keys]
    if len(keys) < 2 and not allow_single:
        raise UserError(f"{origins[0]} is the only view: name two or more by path or views")
    dense = [_dense(source.read(key), o, transpose) for key, o in zip(keys, origins, strict=True)]
    arrays, notes = [array for array, _ in dense], tuple(note for _, note in dense if note)
    _check_lengths(arrays, origins)
    present = _present(source, mask_key, arrays, missing, mask_columns)
    arrays = [_finite(a, present[:, v], origins[v]) for v, a in enumerate(arrays)]
    labels = _labels(source, label_key, len(present)) if label_key else None
    files = [] if isinstance(path, Source) else names(path)
    name = "+".join(Path(file).expanduser().resolve().name for file in files) or source.name
    return Views(arrays, present, origins, labels, name, notes + _row_notes(present, labels))


def _view_keys(source: Source, wanted: list[str], others: set[str]) -> list[str]:
    others = {source.holder(key) for key in others}
    keys = [key for key in source.readers if key not in others]
    if wanted:
        found = [key for name in wanted for key in _members(keys, name)]
        # Of views no other file is read: a missing one of new rows must not be taken from the training's folder.
        absent = next((key for key in found if source.holder(key) not in source.readers), None)
        if absent:
            raise source.absent(absent)
        return found
    matches = ([key for key in keys if re.fullmatch(pattern, key)] for pattern in VIEW_KEYS)
    several = source.keyed and len(source.readers) > 1
    found = sorted(next(filter(None, matches), []), key=natural) if several else keys
    if not found:
        raise UserError(f"{source.name} holds {', '.join(keys) or 'no views'}: say by views which arrays are views")
    return found


def _members(keys: list[str], name: str) -> list[str]:
    """`name`, or all that the cell array or struct of that name holds."""
    inside = [key for key in keys if re.match(re.escape(name) + r"[.{(]", key)]
    return inside if name not in keys and inside else [name]


def _dense(array: Any, origin: str, transpose: bool) -> tuple[np.ndarray, str]:
    """``(numbers [n, d], note)``."""
    sparse = scipy.sparse.issparse(array)
    size = int(np.prod(array.shape, dtype=object)) * array.dtype.itemsize
    note = f"{origin} is sparse, dense it takes {size / 2**20:.0f} MiB" if sparse and size > LARGE else ""
    array = array.toarray() if sparse else array
    if array.dtype.kind not in "biuf":
        raise UserError(f"{origin} is {array.dtype}, not numbers: save one numeric array a view")
    if array.ndim < 2:
        raise UserError(f"{origin} has shape {array.shape}: a view is [rows, columns], a single column [rows, 1]")
    array = array.T if transpose and array.ndim == 2 else array
    if 0 in array.shape:
        raise UserError(f"{origin} has shape {array.shape}: it is empty")
    array = array.astype(np.uint8) if array.dtype == bool else array
    return array.reshape(len(array), -1), note


def _check_lengths(arrays: list[np.ndarray], origins: list[str]) -> None:
    for array, origin in zip(arrays, origins, strict=True):
        if len(array) != len(arrays[0]):
            alike = len({a.shape[1] for a in arrays}) == 1
            hint = "if objects are columns, set transpose" if alike else "a row must be the same object in every view"
            raise UserError(f"{origins[0]} has {len(arrays[0])} rows, {origin} has {len(array)}: {hint}")


def _present(
    source: Source, mask_key: str, arrays: list[np.ndarray], missing: str, columns: Sequence[int]
) -> np.ndarray:
    """Which object has which view, bool [n, views]."""
    present = np.ones((len(arrays[0]), len(arrays)), bool)
    if mask_key:
        present &= _mask(source, mask_key, present.shape, columns)
    if missing == "nan":
        present &= ~np.stack([np.isnan(array).all(1) for array in arrays], 1)
    if not present.any(1).all():
        raise UserError(f"{source.name} row {int(present.any(1).argmin())} has no view at all: leave the row out")
    return present


def _mask(source: Source, key: str, shape: tuple[int, int], columns: Sequence[int]) -> np.ndarray:
    mask, origin = source.read(key), source.origin(key)
    mask = mask.toarray() if scipy.sparse.issparse(mask) else np.asarray(mask)
    if columns and mask.ndim == 2 and max(columns) < mask.shape[1] != shape[1]:
        mask = mask[:, list(columns)]
    if mask.shape != shape:
        raise UserError(f"{origin} has shape {mask.shape}: the mask of these views must be [rows, views], {shape}")
    if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
        raise UserError(f"{origin} must be of 0 and 1 (1 where the object has the view), or of booleans")
    return mask.astype(bool)


def _finite(array: np.ndarray, present: np.ndarray, origin: str) -> np.ndarray:
    """`array` with zeros in the rows not `present`, after a look at the others."""
    if array.dtype.kind != "f":
        return zeroed(array, present)
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(np.asarray(array, np.float32)) & present[:, None]
    if bad.any():
        row, column = np.argwhere(bad)[0]
        hint = "set missing to nan" if np.isnan(array[row]).all() else "mend it, or leave the row out"
        raise UserError(f"{origin} row {row}, column {column} is {array[row, column]:g}, no float32 number: {hint}")
    return zeroed(array, present)


def zeroed(array: np.ndarray, present: np.ndarray) -> np.ndarray:
    """[n, d] with zeros in the rows that are not present."""
    return array if present.all() else np.where(present[:, None], array, np.zeros((), array.dtype))


def _labels(source: Source, key: str, n: int) -> np.ndarray | None:
    """Labels as int64 [n]; text becomes its rank."""
    labels, origin = source.read_labels(key), source.origin(key)
    labels = labels.toarray() if scipy.sparse.issparse(labels) else np.asarray(labels)
    flat = labels.reshape(-1)
    if flat.dtype.kind == "U" and len(flat) == n + 1:
        # A CSV's first line, which is a name then.
        flat = flat[1:]
    if len(flat) != n or max(labels.shape, default=0) != labels.size:
        raise UserError(f"{origin} has shape {labels.shape}: labels of these views must be [{n}]")
    if flat.dtype.kind == "U" and all(re.fullmatch(r"[+-]?\d+(\.0*)?", label) for label in flat):
        flat = flat.astype(np.float64)
    if flat.dtype.kind in "US":
        return np.unique(flat, return_inverse=True)[1].astype(np.int64)
    if flat.dtype.kind not in "biuf" or (flat.dtype.kind == "f" and not (flat % 1 == 0).all()):
        raise UserError(f"{origin} is {flat.dtype}: labels must be whole numbers or text")
    return known_labels(flat.astype(np.int64))


def _row_notes(present: np.ndarray, labels: np.ndarray | None) -> tuple[str, ...]:
    n, lacking = len(present), int((~present.all(1)).sum())
    unknown = 0 if labels is None else int((labels < 0).sum())
    return tuple(
        f"{count} of {n} objects {what}"
        for count, what in ((lacking, "lack a view"), (unknown, "have no label, it is negative"))
        if count
    )
