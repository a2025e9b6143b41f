"""Arrays whose rows are read when they are wanted, by Grain's threads, ahead of who takes them in a known order."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from clustering_jax.errors import UserError

# Rows that a thread reads at a time: less is dearer to hand over, more keeps a batch's first rows waiting.
PART = 16
# Where the files are far away threads wait more than they work, so these are more than a small machine's cores.
THREADS = max(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Lazy:
    """Images [n, ...] that are indexed as an array is, by a number, a slice or numbers, and read only then.

    read: ``(rows int [m]) -> m arrays``, called by several threads; UserError for a row that can't be read.
    """

    shape: tuple[int, ...]
    read: Callable[[np.ndarray], Iterable[np.ndarray]]
    dtype: ClassVar = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Dimensions, as an array's."""
        return len(self.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        if np.ndim(index) == 0 and not isinstance(index, slice):
            return np.asarray(next(iter(self.read(np.array([index])))))
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        rows = np.unique(index)
        with closing(read_ahead(self, lambda _: rows, range(1))) as found:
            return next(found)[index]


class Read(NamedTuple):
    """The rows of an array that were read: they go by their numbers in it. rows: int [m], rising. values: [m, ...]."""

    rows: np.ndarray
    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is here; beyond the first dimension that of the whole array."""
        return self.values.shape

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.values[np.searchsorted(self.rows, index)]


def read_ahead(source: Lazy, rows_of: Callable[[int], np.ndarray], steps: range) -> Iterator[Read]:
    """What each of `steps` wants of `source`, in their order, while threads read what the next two want.

    Args:
      rows_of: the rows of a step, a pure function, called by several threads: int, rising, at most as many as those of
        the first step.
    """
    grain = load_grain()
    parts = max(1, math.ceil(len(rows_of(steps.start)) / PART))

    def part(number: int) -> np.ndarray:
        step, place = divmod(number, parts)
        rows = rows_of(step)[place * PART : (place + 1) * PART]
        values = np.empty((len(rows), *source.shape[1:]), source.dtype)
        for value, found in zip(values, source.read(rows), strict=True):
            value[...] = found
        return values

    numbers = grain.MapDataset.range(steps.start * parts, steps.stop * parts)
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=max(THREADS, 2 * parts))
    with closing(iter(numbers.map(part).to_iter_dataset(options))) as found:
        for step in steps:
            yield Read(rows_of(step), np.concatenate([next(found) for _ in range(parts)]))


def load_grain() -> Any:
    """The library; UserError where it is not installed."""
    # Importing it takes a second, and only streaming needs it.
    try:
        import grain
    except ImportError as error:
        raise UserError('streaming needs Grain: pip install "clustering_jax[stream]"') from error
    return grain
