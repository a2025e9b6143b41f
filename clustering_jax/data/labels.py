"""Labels of every source, and of `y`, with one meaning of "unknown". They are for scoring only."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from clustering_jax.errors import UserError

# What pandas and R write for a missing value, in lower case; pandas reads all of them as missing too.
UNKNOWN = frozenset({"", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "none", "null"})
# Names of columns and files that hold labels.
NAMES = frozenset({"class", "classes", "gt", "label", "labels", "target", "targets", "truth", "y", "groundtruth"})
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?")


def read_labels(values: Any, n: int, origin: str) -> np.ndarray | None:
    """Turns labels into class numbers.

    Whole numbers stay as they are; text becomes its rank in sorted order, unless all of it is whole numbers. A label is
    unknown where it is negative, empty, NA, NaN, None or null.

    Args:
      values: numbers, text or Python objects, [n], [n, 1] or [1, n]; dense, sparse or masked.
      n: number of rows.
      origin: name of the labels in messages.

    Returns:
      int64 [n], -1 where the label is unknown; None if all of them are.

    Raises:
      UserError: the shape is another one, or a label is neither a whole number nor text.
    """
    labels = values.toarray() if scipy.sparse.issparse(values) else _array(values)
    if labels.size != n or max(labels.shape, default=0) != labels.size:
        raise UserError(f"{origin} has shape {labels.shape}: give one label for each of the {n} rows")
    flat = labels.reshape(-1)
    if flat.dtype.kind == "S":
        flat = np.char.decode(flat, "utf-8", "replace")
    codes = _text(flat, origin) if flat.dtype.kind in "OUT" else _numbers(flat, origin)
    codes = np.where(codes < 0, -1, codes)
    return codes if (codes >= 0).any() else None


def _array(values: Any) -> np.ndarray:
    """The values as an array, with None where they are masked."""
    array = np.asanyarray(values)
    if not isinstance(array, np.ma.MaskedArray):
        return np.asarray(array)
    gaps, objects = np.ma.getmaskarray(array), array.data.astype(object)
    objects[gaps] = None
    return objects


def _numbers(labels: np.ndarray, origin: str) -> np.ndarray:
    if labels.dtype.kind not in "biuf":
        raise UserError(f"{origin} is {labels.dtype}: labels must be whole numbers or text")
    known = np.where(np.isnan(labels), -1, labels) if labels.dtype.kind == "f" else labels
    bad = known >= 2.0**63
    if labels.dtype.kind == "f":
        bad |= (known < -(2.0**63)) | (known != np.rint(known))
    if bad.any():
        row = int(bad.argmax())
        raise UserError(f"{origin} row {row} is {labels[row]}: labels must be whole numbers or text")
    return known.astype(np.int64)


def _text(labels: np.ndarray, origin: str) -> np.ndarray:
    """The codes of text or of Python objects."""
    words = [_word(label, origin, row) for row, label in enumerate(labels)]
    known = np.array([word.lower() not in UNKNOWN for word in words], bool)
    if all(_WHOLE.fullmatch(word) for word in np.array(words, object)[known]):
        values = [int(word.partition(".")[0]) if is_known else -1 for word, is_known in zip(words, known, strict=True)]
        return _numbers(np.array(values, np.float64 if max(map(abs, values), default=0) >= 2**63 else np.int64), origin)
    codes = np.full(len(words), -1, np.int64)
    codes[known] = np.unique(np.array(words, str)[known], return_inverse=True)[1]
    return codes


def _word(label: Any, origin: str, row: int) -> str:
    """The text of a label, which may be an object of a list or of a data frame."""
    if isinstance(label, bytes):
        return label.decode("utf-8", "replace").strip()
    if isinstance(label, bool | np.bool_):
        return str(int(label))
    if isinstance(label, float | np.floating) and np.isinf(label):
        raise UserError(f"{origin} row {row} is {label}: labels must be whole numbers or text")
    return str(label).strip()


def named_as_labels(name: str) -> bool:
    """Whether a file or a column is called as labels are: "y_true.npy", "Labels.csv", "class"."""
    stem = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", Path(name).stem).lower()
    words = [word for word in re.split(r"[^a-z]+", stem) if word]
    return any(word in NAMES for word in words) or bool(re.search("label|target", stem))


def column_of(rows: list[list[str]], n: int, origin: str, column: str = "") -> list[str]:
    """The labels among the lines of a CSV.

    Args:
      rows: the cells of every line; a blank line has none.
      n: number of labels.
      origin: name of the file in messages.
      column: name of the column; "" takes the only one, or the one that is called as labels are.

    Returns:
      n cells. A blank line in a file of one column is an unknown label, where the number of lines says so.

    Raises:
      UserError: there are several columns and none is named, or the number of labels differs from n.
    """
    while len(rows) > n + 1 and not rows[-1]:
        rows = rows[:-1]
    filled = [row for row in rows if row]
    width = max(map(len, filled), default=0)
    at = _position([cell.strip() for cell in filled[0]] if filled else [], width, origin, column)
    cells = [row[at].strip() if len(row) > at else "" for row in filled]
    named = bool(column) or _is_name(cells)
    with_gaps = [row[at].strip() if row else "" for row in rows] if width == 1 else cells
    if len(cells) - named == n:
        if width == 1 and len(rows) == n + 1 > len(cells) and not named and _may_be_name(cells):
            raise UserError(f"{origin}: is '{cells[0]}' a name or a label? call it label, and write NA for no label")
        return cells[named:]
    if len(with_gaps) - 1 == n and (named or len(cells) == n + 1):
        return with_gaps[1:]
    if len(with_gaps) == n and not named:
        return with_gaps
    raise UserError(f"{origin} has {len(cells) - named} labels: give one for each of the {n} rows")


def _position(first: list[str], width: int, origin: str, column: str) -> int:
    """The number of the column of labels."""
    if column:
        if column in first:
            return first.index(column)
        raise UserError(f"{origin} has no column '{column}': its first line is {', '.join(first)[:100]}")
    if width <= 1:
        return 0
    if width == 2 and first[0] == "":
        return 1  # the index of pandas
    called = [i for i, name in enumerate(first) if named_as_labels(name)]
    if len(called) == 1:
        return called[0]
    raise UserError(
        f"{origin} has {width} columns ({', '.join(first)[:100]}), and no single one is called label: "
        f"name the one of the labels by label_key={Path(origin).name}:COLUMN"
    )


def _is_name(cells: list[str]) -> bool:
    """Whether the first cell is the name of the column: it is called so, or it is the only one that is no number."""
    known = [cell for cell in cells[1:] if cell.lower() not in UNKNOWN]
    numbers = bool(known) and all(map(_WHOLE.fullmatch, known))
    return _may_be_name(cells) and (numbers or named_as_labels(cells[0]))


def _may_be_name(cells: list[str]) -> bool:
    return (
        bool(cells) and not _WHOLE.fullmatch(cells[0]) and cells[0] not in cells[1:] and cells[0].lower() not in UNKNOWN
    )
