"""The files of a directory of embeddings: the manifest, arrays that grow and can be resumed, and their checksums."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clustering_jax.errors import UserError
from clustering_jax.files import read_json, replace, sync, write_json, writing

# Rows that are read at a time to check them.
ROWS = 4096


class Manifest:
    """manifest.json: what was embedded, and with which model and settings.

    Args:
      path: the file.
      settings: model and settings by name.

    Raises:
      UserError: the file exists and has other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]):
        self.path = path
        self.content = read_json(path, dict) or {**settings, "splits": {}, "nouns": {}}
        for group in ("splits", "nouns"):
            if not isinstance(self.content.get(group), dict):
                self.content[group] = {}
        for name, value in settings.items():
            if self.content.get(name) != value:
                change = f"{name} {self.content.get(name)!r}, now it is {value!r}"
                raise UserError(f"{path.parent} holds embeddings of {change}: use another directory")

    def is_whole(self, group: str, name: str, mark: str) -> bool:
        """Whether an entry of that `mark` is there with all its files, in the group "splits" or "nouns"."""
        entry = self.content[group].get(name) if name else self.content[group]
        if not isinstance(entry, dict) or entry.get("mark") != mark:
            return False
        sums = {f"{name or group}.npy": entry.get("sha256"), **(entry.get("files") or {})}
        directory = self.path.parent
        return all((directory / file).is_file() and sha256(directory / file) == sha for file, sha in sums.items())

    def add(self, group: str, entry: Mapping[str, Any]) -> None:
        """Records an entry that is complete on disk, in the group "splits" or "nouns"."""
        self.content[group] = {**self.content[group], **entry}
        write_json(self.path, self.content)


def resumed(part: Path, record: dict[str, Any], mark: str, n: int) -> tuple[Any, int, Any]:
    """Finds the rows of an interrupted call. What a broken disk or a power cut left is computed again.

    Args:
      part: the unfinished file.
      record: what the call recorded: mark, number of finished rows, and their digest.
      mark: digest of everything that the rows depend on.
      n: number of rows.

    Returns:
      ``(array, finished rows, digest so far)``; None, 0 and a new digest if there is nothing to go on with.
    """
    sums, done = hashlib.blake2b(digest_size=16), record.get("rows")
    if record.get("mark") == mark and type(done) is int and 0 < done <= n and part.is_file():
        try:
            array: Any = np.lib.format.open_memmap(part, "r+")
        except (OSError, ValueError):  # cut off
            array = None
        if array is not None and array.ndim == 2 and len(array) == n and array.dtype == np.float32:
            for start in range(0, done, ROWS):
                sums.update(array[start : min(start + ROWS, done)].tobytes())
            if sums.hexdigest() == record.get("digest"):
                return array, done, sums
        warnings.warn(f"{part} is damaged, and is computed again", stacklevel=2)
    return None, 0, hashlib.blake2b(digest_size=16)


def created(part: Path, shape: tuple[int, int]) -> np.ndarray:
    """A new memory-mapped array whose space on the disk is taken: a full disk would kill the process while writing."""
    array = np.lib.format.open_memmap(part, "w+", np.float32, shape)
    with part.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
    return array


def save(path: Path, array: np.ndarray) -> None:
    """Writes a `.npy` file as a whole or not at all."""
    partial_path = path.with_suffix(".npy.part")
    with writing(path), partial_path.open("wb") as file:
        np.save(file, array)
        file.flush()
        sync(file.fileno())
    replace(partial_path, path)


def digest(*parts: Any) -> str:
    """A digest of values that JSON can hold."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def sha256(path: Path) -> str:
    """The checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
