"""The arrays behind a path: those of one file by key, those of a folder, or those of several files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from clustering_jax.data.labels import column_of
from clustering_jax.data.views.readers import SUFFIXES, csv_rows, file_arrays, only_array
from clustering_jax.errors import UserError, nearest

Paths = str | Path | Sequence[str | Path]


class Source(NamedTuple):
    """Arrays that are not read yet.

    Attributes:
      name: the path as the user gave it, for messages.
      root: the directory of the file names.
      keyed: True for one file, whose arrays have keys; False for several files, whose names are the keys. An array of a
        file with several arrays is then "file:array".
      readers: functions that read an array, by key.
    """

    name: str
    root: Path
    keyed: bool
    readers: Mapping[str, Callable[[], Any]]

    @property
    def is_folder(self) -> bool:
        """Whether the arrays are the files that were found in a folder."""
        return not self.keyed and self.root != Path()

    def origin(self, key: str) -> str:
        """Returns how messages name the array."""
        if not self.keyed or key not in self.readers:
            return str(self.root / key)
        return self.name if key == Path(self.name).name else f"{self.name} ['{key}']"

    def holder(self, key: str) -> str:
        """Returns the key of the reader for `key`: for "file:array", the name of the file. It may not exist."""
        return key if self.keyed or key in self.readers else file_of(key)

    def find(self, key: str) -> str:
        """Finds the array that another source calls `key`. Files match by name, whatever their folder.

        Returns:
          The key in this source, "" if there is no such array.
        """
        if self.holder(key) in self.readers:
            return key
        for name in (key, file_of(key)):
            for file in [] if self.keyed else self.readers:
                if Path(file).name == Path(name).name:
                    return file + key.removeprefix(name)
        return ""

    def read(self, key: str) -> Any:
        """Reads the array `key`, or the file of that name, even if it does not belong to the source.

        Returns:
          A dense or sparse array.

        Raises:
          UserError: there is no such array or file.
        """
        inside = [name for name in self.readers if re.match(re.escape(key) + r"[.{(]", name)]
        if key in self.readers or len(inside) == 1:  # the only cell or field of that name
            return self.readers[key if key in self.readers else inside[0]]()
        for name, inner in ((key, ""), (file_of(key), key.partition(":")[2])):
            file = (self.root / name).expanduser()
            if file.is_file():
                return only_array(file, inner)
        raise self.absent(key)

    def absent(self, key: str) -> UserError:
        """Returns the error for a missing array."""
        inside = [name for name in self.readers if re.match(re.escape(key) + r"[.{(]", name)]
        hint = f": it holds {', '.join(inside[:5])}, name one of them" if inside else nearest(key, self.readers)
        return UserError(f"{self.name} has no array '{key}'{hint}")

    def read_labels(self, key: str, n: int) -> Any:
        """Reads n labels: as `read`; "file.csv" is the column of labels in a CSV, "file.csv:name" the column `name`."""
        for name, column in ((key, ""), (file_of(key), key.partition(":")[2])):
            file = (self.root / name).expanduser()
            if file.suffix.lower() == ".csv" and file.is_file():
                return column_of(csv_rows(file), n, str(file), column)
        return self.read(key)


def file_of(key: str) -> str:
    """Returns the name of the file in "file" or "file:array"."""
    return key.partition(":")[0]


def open_source(path: Paths | Mapping[str, Any]) -> Source:
    """Lists the arrays behind a path without reading them.

    The files of a folder are in natural order of their names. Hidden files and files of other types are ignored.

    Args:
      path: a file, a folder, or several files, as a sequence or as a string with commas; or arrays in memory by key.

    Raises:
      UserError: a file is missing, damaged, of an unknown type or named twice; or the folder has no such files.
    """
    if isinstance(path, Mapping):
        return Source("X", Path(), True, {key: partial(path.__getitem__, key) for key in path})
    files = names(path)
    if not files:
        raise UserError("path is empty: give a file, a folder or several files with views")
    paths = [_existing(file) for file in files]
    twice = next((file for file in files if files.count(file) > 1), None)
    if twice:
        raise UserError(f"path names {twice} twice: name every view's file once")
    if len(files) > 1:
        readers = {name: partial(only_array, file) for name, file in zip(files, paths, strict=True)}
        return Source(", ".join(files), Path(), False, readers)
    if not paths[0].is_dir():
        return Source(files[0], Path(), True, file_arrays(paths[0]))
    inside = [f for f in paths[0].iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")]
    if not inside:
        raise UserError(f"{paths[0]} holds no files of arrays (looked for {' '.join(SUFFIXES)})")
    readers = {f.name: partial(only_array, f) for f in sorted(inside, key=lambda f: natural(f.name))}
    return Source(files[0], paths[0], False, readers)


def names(value: Paths) -> list[str]:
    """Returns a sequence as a list of strings. A string is split at its commas, unless it is the path of a file."""
    if not isinstance(value, str | Path):
        return [str(item) for item in value]
    # os.path, because Path.exists raises if the string is too long for a file name.
    is_path = os.path.exists(os.path.expanduser(value))
    parts = [str(value)] if is_path else str(value).split(",")
    return [part.strip() for part in parts if part.strip()]


def natural(name: str) -> list[Any]:
    """Returns a sort key that compares numbers in names by value."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))]


def _existing(path: str) -> Path:
    file = Path(path).expanduser()
    if not file.exists():
        raise UserError(f"'{path}' does not exist: give a folder, or files of {' '.join(SUFFIXES)}")
    if not file.is_dir() and file.suffix.lower() not in SUFFIXES:
        raise UserError(f"{file} is of an unknown type: give a folder, or files of {' '.join(SUFFIXES)}")
    return file
