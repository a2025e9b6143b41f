"""Arrays whose rows are read from storage on demand. Grain's threads prefetch them when the order is known."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from clustering_jax.errors import UserError

# Rows that a thread reads at a time. Fewer rows cost more to hand over; more rows delay the start of a batch.
PART = 16
# With remote files the threads wait more than they work, so use more threads than a small machine has cores.
THREADS = max(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class LazyArray:
    """Images [n, ...] that are read only when they are indexed, by a number, a slice or an array of numbers.

    Attributes:
      shape: (n, ...), as of an array.
      read: ``(rows int [m]) -> m arrays``. Several threads call it. It raises UserError if a row can't be read.
      mark: a digest of the files behind the array, for `clustering_jax.data.identity`.
    """

    shape: tuple[int, ...]
    read: Callable[[np.ndarray], Iterable[np.ndarray]]
    mark: Callable[[], str] = str
    dtype: ClassVar = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of dimensions, as of an array."""
        return len(self.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        if np.ndim(index) == 0 and not isinstance(index, slice):
            return np.asarray(next(iter(self.read(np.array([index])))))
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        rows = np.unique(index)
        with closing(read_ahead(self, lambda _: rows, range(1))) as subsets:
            return next(subsets)[index]


@dataclass(frozen=True)
class RowSubset:
    """Rows of an array that have been read. They are indexed by their row numbers in the whole array.

    Attributes:
      rows: int [m], increasing.
      values: [m, ...], the rows themselves.
    """

    rows: np.ndarray
    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """(m, ...). All dimensions but the first are those of the whole array."""
        return self.values.shape

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.values[np.searchsorted(self.rows, index)]


def read_ahead(
    source: LazyArray, rows_of: Callable[[int], np.ndarray], steps: range
) -> Generator[RowSubset, None, None]:
    """Yields the rows of `source` for each step in order. Threads prefetch the rows of the next two steps.

    Args:
      source: the array to read from.
      rows_of: the rows of a step: int, increasing, at most as many as in the first step. It must be a pure function,
        because several threads call it.
      steps: the steps to read for.
    """
    grain = load_grain()
    parts = max(1, math.ceil(len(rows_of(steps.start)) / PART))

    def read_part(number: int) -> np.ndarray:
        step, position = divmod(number, parts)
        rows = rows_of(step)[position * PART : (position + 1) * PART]
        values = np.empty((len(rows), *source.shape[1:]), source.dtype)
        for value, row in zip(values, source.read(rows), strict=True):
            value[...] = row
        return values

    numbers = grain.MapDataset.range(steps.start * parts, steps.stop * parts)
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=max(THREADS, 2 * parts))
    with closing(iter(numbers.map(read_part).to_iter_dataset(options))) as read_parts:
        for step in steps:
            yield RowSubset(rows_of(step), np.concatenate([next(read_parts) for _ in range(parts)]))


def load_grain() -> Any:
    """Imports and returns Grain.

    Raises:
      UserError: Grain is not installed.
    """
    # The import takes a second, and only streaming needs it.
    try:
        import grain
    except ImportError as error:
        raise UserError('streaming needs Grain: pip install "clustering_jax[stream]"') from error
    return grain
