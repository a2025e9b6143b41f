"""Reads arrays from files of NumPy, SciPy (sparse), CSV, Parquet and MATLAB. Pickled data are never loaded."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from clustering_jax.data.claims import SPARSE, check_npy, check_npz, checked_sparse, checked_text
from clustering_jax.data.views.matlab import read_mat
from clustering_jax.errors import UserError, reading

SUFFIXES = (".npy", ".npz", ".csv", ".parquet", ".mat")
SPARSE_KEYS = {"data", "format", "shape"}
# What R and pandas write for a missing number. Python itself reads "nan".
MISSING_CELLS = ("", "NA")


def only_array(path: Path, key: str = "") -> Any:
    """Reads the only array of a file, or the array `key` of several.

    Raises:
      UserError: the file has an unknown type, is damaged, or has no such array; or `key` is "" and there are several.
    """
    if path.is_dir() or path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path} is not a file of an array: give {' '.join(SUFFIXES)}")
    readers = file_arrays(path)
    held = ", ".join(readers) or "nothing"
    if key and key not in readers:
        raise UserError(f"{path} holds {held}, no array '{key}'")
    if not key and len(readers) != 1:
        raise UserError(f"{path} holds {held}: one of several files must hold one array, or views name it (file:array)")
    return readers[key]() if key else next(iter(readers.values()))()


def file_arrays(path: Path) -> dict[str, Callable[[], Any]]:
    """Returns functions that read the arrays of a file, by key. In formats without keys, the key is the file name.

    Raises:
      UserError: the file is damaged.
    """
    kind = path.suffix.lower()
    with reading(path):
        if kind == ".mat":
            arrays = {key: _checked(array, f"{path} ['{key}']") for key, array in read_mat(path).items()}
            return {key: partial(arrays.__getitem__, key) for key in arrays}
        if kind == ".npz":
            keys = check_npz(path)
            if not SPARSE_KEYS.issubset(keys):
                return {key: partial(_npz_array, path, key) for key in keys}
    return {path.name: partial({".npy": _npy, ".npz": _sparse, ".csv": _csv, ".parquet": _parquet}[kind], path)}


def _checked(array: Any, origin: str) -> Any:
    return checked_sparse(array, origin) if scipy.sparse.issparse(array) else array


def _npy(path: Path) -> np.ndarray:
    with reading(path):
        check_npy(path)
        return checked_text(np.load(path, mmap_mode="r", allow_pickle=False))


def _npz_array(path: Path, key: str) -> np.ndarray:
    with reading(path):
        check_npz(path, key)
        with np.load(path, allow_pickle=False) as archive:
            return checked_text(archive[key])


def _sparse(path: Path) -> Any:
    with reading(path):
        for key in check_npz(path):
            check_npz(path, key)
        with np.load(path, allow_pickle=False) as archive:
            kind = archive["format"].item()
        kind = kind.decode("ascii", "replace") if isinstance(kind, bytes) else str(kind)
        if kind not in SPARSE:  # SciPy's constructors trust the others' indices
            raise UserError(f"{path} is a sparse array of the format {kind[:20]}: save it as {' or '.join(SPARSE)}")
        return checked_sparse(scipy.sparse.load_npz(path), str(path))


def _parquet(path: Path) -> np.ndarray:
    """Reads the columns, without the index of pandas, as [n, d]. Nulls become NaN. A single column may be text."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f'{path} needs pyarrow to be read: pip install "clustering_jax[tables]"') from error
    with reading(path):
        table = parquet.read_table(path)
        index = (table.schema.pandas_metadata or {}).get("index_columns", [])
        table = table.drop_columns([name for name in index if isinstance(name, str)])
        columns = {name: table[name].to_numpy() for name in table.column_names}
        text = [name for name in columns if not _numeric(table.schema.field(name).type, pa)]
        if text and len(columns) > 1:
            kind = table.schema.field(text[0]).type
            raise UserError(f"{path} column '{text[0]}' is {kind}, not numbers: leave it out")
        return np.column_stack([c.astype(str) if text else c for c in columns.values()])


def _numeric(kind: Any, pa: Any) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _csv(path: Path) -> np.ndarray:
    """Reads numbers as float64 [n, d], without the header and the index of pandas. Empty cells and NA become NaN."""
    lines = [cells for cells in csv_rows(path) if cells]
    if not lines:
        return np.empty((0, 0))
    width = len(lines[0])
    header = _is_header(path, lines[0], lines[1:])
    skipped = int(header and lines[0][0] == "")
    rows = [_numbers(path, i, cells, width, skipped) for i, cells in enumerate(lines[header:])]
    return np.stack(rows) if rows else np.empty((0, width))


def csv_rows(path: Path) -> list[list[str]]:
    """Reads the cells of every line of a CSV as text. A blank line has no cells."""
    with reading(path), path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.reader(file))


def _is_header(path: Path, cells: list[str], others: list[list[str]]) -> bool:
    """Returns whether the first line of a CSV holds names: no numbers, or 0, 1, 2, ... as pandas numbers columns.

    Raises:
      UserError: a first line 0,1 may be either.
    """
    named = cells[1:] if cells[:1] == [""] else cells
    if named != [str(i) for i in range(len(named))] or not named:
        return bool(named) and all(_number(cell) is None for cell in named)
    if len(named) > 2 or len(named) < len(cells):
        return True
    # pandas writes the whole numbers of a column of fractions as 0.0 and 1.0.
    fractions = any(set(cell) & set(".eE") for line in others for cell in line)
    if len(named) == 2 and others and not fractions:
        raise UserError(f"{path}: is its first line, 0,1, a row or pandas' header? give the columns names")
    return fractions


def _number(cell: str) -> float | None:
    cell = cell.strip()
    try:
        return float("nan" if cell in MISSING_CELLS else cell)
    except ValueError:
        return None


def _numbers(path: Path, row: int, cells: list[str], width: int, skipped: int) -> np.ndarray:
    """Returns the numbers of a line, without the first `skipped` columns."""
    if len(cells) != width:
        raise UserError(f"{path} row {row} has {len(cells)} columns, the first line {width}: is the file cut off?")
    numbers = [_number(cell) for cell in cells[skipped:]]
    if None in numbers:
        column = numbers.index(None)
        cell = cells[skipped + column][:40]
        raise UserError(f"{path} row {row}, column {column} is '{cell}', not a number: separate numbers by commas")
    return np.array(numbers, np.float64)
