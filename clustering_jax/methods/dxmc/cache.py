"""Results of long computations before training, kept on disk so that a run cut short finds them again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from clustering_jax.errors import UserError
from clustering_jax.parallel import is_first
from clustering_jax.typing import Array


class Stages:
    """Arrays by name in `directory`, each a function of `key`, `arrays` and settings: what differs is computed anew.

    A file holds all of its array or is not there; one that is damaged (its CRC is checked) counts as not there. Every
    process computes, the first one writes.
    """

    def __init__(self, directory: Path, key: Array, *arrays: np.ndarray):
        self._directory = directory
        self._digest = hashlib.blake2b(np.asarray(jax.random.key_data(key)).tobytes(), digest_size=8)
        for array in arrays:
            self._digest.update(f"{array.shape}{array.dtype}".encode())
            self._digest.update(np.ascontiguousarray(array).data)

    def __call__(self, name: str, settings: Any, compute: Callable[[], Any]) -> np.ndarray:
        """The array kept under `name` for these `settings`, or the newly computed one, kept from now on.

        Raises:
          UserError: it can't be written.
        """
        digest = self._digest.copy()
        digest.update(repr(settings).encode())
        path = self._directory / f"{name}-{digest.hexdigest()}.npz"
        found = _read(path)
        if found is not None:
            return found
        array = np.asarray(compute())
        try:
            if is_first():
                _write(path, array)
        except OSError as error:
            raise UserError(f"{self._directory} can't be written ({error.strerror})") from error
        return array


def _write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        np.savez(file, array=array)
    partial.replace(path)


def _read(path: Path) -> np.ndarray | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return archive["array"]
    except Exception:  # of broken files: OSError, BadZipFile, KeyError, NotImplementedError, RuntimeError, ...
        return None
