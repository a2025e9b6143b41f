"""The arrays that a path stands for: of one file by key, of a folder, or of several files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from clustering_jax.data.views.readers import SUFFIXES, file_arrays, only_array, text_column
from clustering_jax.errors import UserError, nearest


class Source(NamedTuple):
    """Arrays not read yet.

    name: the path as given, for messages. root: where file names start. keyed: whether it is one file, whose arrays
    have keys, or several, whose names are the keys, and "file:array" where one holds several. readers: by key.
    """

    name: str
    root: Path
    keyed: bool
    readers: Mapping[str, Callable[[], Any]]

    def origin(self, key: str) -> str:
        """The array in the words of a message."""
        if not self.keyed or key not in self.readers:
            return str(self.root / key)
        return self.name if key == Path(self.name).name else f"{self.name} ['{key}']"

    def holder(self, key: str) -> str:
        """The key of the reader that has `key`, if any has: that of its file where it is "file:array"."""
        return key if self.keyed or key in self.readers else file_of(key)

    def find(self, key: str) -> str:
        """The key of the array that another source has as `key`, "" if there is none: files go by their own names."""
        if self.holder(key) in self.readers:
            return key
        for name in (key, file_of(key)):
            for file in [] if self.keyed else self.readers:
                if Path(file).name == Path(name).name:
                    return file + key.removeprefix(name)
        return ""

    def read(self, key: str) -> Any:
        """The array `key`, dense or sparse, or that of another file of this name; UserError if there is none."""
        if key in self.readers:
            return self.readers[key]()
        for name, inner in ((key, ""), (file_of(key), key.partition(":")[2])):
            file = (self.root / name).expanduser()
            if file.is_file():
                return only_array(file, inner)
        raise self.absent(key)

    def absent(self, key: str) -> UserError:
        """What to raise where there is no such array."""
        return UserError(f"{self.name} has no array '{key}'{nearest(key, self.readers)}")

    def read_labels(self, key: str) -> Any:
        """`read`, but the first column of a CSV comes as text, its first line with it."""
        file = self.root / key
        return text_column(file) if file.suffix.lower() == ".csv" and file.is_file() else self.read(key)


def file_of(key: str) -> str:
    """The file's name in "file" and in "file:array"."""
    return key.partition(":")[0]


def open_source(path: str | Path | Sequence[str | Path] | Mapping[str, Any]) -> Source:
    """What there is to read: `path` is a file, a folder, or several files, as a sequence or with commas; or the arrays
    themselves by key.

    The files of a folder are in natural order of their names; hidden ones and other types are passed over.

    Raises:
      UserError: a file is missing, damaged, of no known type or named twice; a folder without files.
    """
    if isinstance(path, Mapping):
        return Source("X", Path(), True, {key: partial(path.__getitem__, key) for key in path})
    files = names(path)
    if not files:
        raise UserError("path is empty: give a file, a folder or several files with views")
    found = [_existing(file) for file in files]
    twice = next((file for file in files if files.count(file) > 1), None)
    if twice:
        raise UserError(f"path names {twice} twice: name every view's file once")
    if len(files) > 1:
        readers = {name: partial(only_array, file) for name, file in zip(files, found, strict=True)}
        return Source(", ".join(files), Path(), False, readers)
    if not found[0].is_dir():
        return Source(files[0], Path(), True, file_arrays(found[0]))
    inside = [f for f in found[0].iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")]
    if not inside:
        raise UserError(f"{found[0]} holds no files of arrays (looked for {' '.join(SUFFIXES)})")
    readers = {f.name: partial(only_array, f) for f in sorted(inside, key=lambda f: natural(f.name))}
    return Source(files[0], found[0], False, readers)


def names(value: str | Path | Sequence[str | Path]) -> list[str]:
    """A sequence as a list of strings; a string is split at its commas, unless it is the path of a file."""
    if not isinstance(value, str | Path):
        return [str(item) for item in value]
    # os.path: Path.exists raises over a list longer than a file name may be.
    is_path = os.path.exists(os.path.expanduser(value))
    parts = [str(value)] if is_path else str(value).split(",")
    return [part.strip() for part in parts if part.strip()]


def natural(name: str) -> list[Any]:
    """Sorts numbers in names by value."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))]


def _existing(path: str) -> Path:
    found = Path(path).expanduser()
    if not found.exists():
        raise UserError(f"'{path}' does not exist: give a folder, or files of {' '.join(SUFFIXES)}")
    if not found.is_dir() and found.suffix.lower() not in SUFFIXES:
        raise UserError(f"{found} is of no known type: give a folder, or files of {' '.join(SUFFIXES)}")
    return found
