"""A disk cache for the results of long computations before training, so that an interrupted run finds them again."""

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


class ArrayCache:
    """Arrays by name in a directory. Each is a function of `key`, `arrays` and settings, which its file name digests.

    A file is written as a whole or not at all. A damaged file (its CRC is checked) counts as missing. Every process
    computes a missing array; the first process writes it.

    Args:
      directory: where the files are; it is created when needed.
      key: random key of the computations.
      arrays: inputs of the computations.
    """

    def __init__(self, directory: Path, key: Array, *arrays: np.ndarray):
        self._directory = directory
        self._digest = hashlib.blake2b(np.asarray(jax.random.key_data(key)).tobytes(), digest_size=8)
        for array in arrays:
            self._digest.update(f"{array.shape}{array.dtype}".encode())
            self._digest.update(np.ascontiguousarray(array).data)

    def __call__(self, name: str, settings: Any, compute: Callable[[], Any]) -> np.ndarray:
        """The cached array, or the computed one, which is then cached.

        Args:
          name: start of the file's name.
          settings: further inputs of the computation; its text enters the digest.
          compute: computes the array.

        Returns:
          The array.

        Raises:
          UserError: the file can't be written.
        """
        digest = self._digest.copy()
        digest.update(repr(settings).encode())
        path = self._directory / f"{name}-{digest.hexdigest()}.npz"
        cached = _read(path)
        if cached is not None:
            return cached
        array = np.asarray(compute())
        try:
            if is_first():
                _write(path, array)
        except OSError as error:
            raise UserError(f"{self._directory} can't be written ({error.strerror})") from error
        return array


def _write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez(file, array=array)
    unfinished.replace(path)


def _read(path: Path) -> np.ndarray | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return archive["array"]
    except Exception:  # a broken file raises OSError, BadZipFile, KeyError, NotImplementedError, RuntimeError, ...
        return None
