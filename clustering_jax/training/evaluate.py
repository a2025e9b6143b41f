"""Inference over a whole data set, in the order of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from clustering_jax.data.images.streaming import LazyArray, read_ahead
from clustering_jax.parallel import batch_rows, batch_sharding, data_mesh, local_batch_indices, replicate, replicated

# Batches in flight: enough that the device never waits. More of them would fill the memory with their rows.
QUEUED = 8


def make_infer(function: Callable, batch_size: int) -> Callable:
    """Compiles `function` for any number of rows.

    The last batch is padded with copies of its first row, so one compiled shape serves all batches. Fewer rows than a
    batch are padded to the next power of two only: a single row does not cost a whole batch. With several processes,
    each process reads its part of every batch and gets the whole result.

    Args:
      function: ``(variables, batch) -> [b, ...]``.
      batch_size: rows at a time, over all devices.

    Returns:
      ``infer(variables, features) -> [n, ...]``, where `features` is a dictionary of arrays [n, ...]. Memory maps are
      read one batch at a time, and a `LazyArray` is read ahead.
    """
    mesh = data_mesh(batch_size)
    rows, whole = batch_sharding(mesh), replicated(mesh)
    apply = jax.jit(function, in_shardings=(whole, rows), out_shardings=rows if jax.process_count() == 1 else whole)

    def chunks(variables: Any, features: Mapping[str, Any]) -> Iterator[tuple[jax.Array, int]]:
        total = len(next(iter(features.values())))
        size = _size(total, batch_size, mesh.size)
        local_indices = local_batch_indices(size, mesh)
        starts = range(0, total, size)

        def index_of(number: int) -> np.ndarray:
            index = starts[number] + np.arange(size)
            return np.where(index < total, index, starts[number])

        def rows_of(number: int) -> np.ndarray:
            return np.unique(index_of(number)[local_indices])

        numbers = range(len(starts))
        readers = {k: read_ahead(v, rows_of, numbers) for k, v in features.items() if isinstance(v, LazyArray)}
        for number, start in enumerate(starts):
            sources = {**features, **{k: next(reader) for k, reader in readers.items()}}
            batch = {k: batch_rows(v, index_of(number), mesh) for k, v in sources.items()}
            yield apply(variables, batch), min(size, total - start)

    def infer(variables: Any, features: Mapping[str, Any]) -> np.ndarray:
        return concatenate(chunks(replicate(variables, mesh), features))

    return infer


def _size(total: int, batch_size: int, devices: int) -> int:
    """Returns the rows of a compiled batch: a power of two for each device, at most `batch_size`."""
    if jax.process_count() > 1 or total >= batch_size:
        return batch_size
    size = devices
    while size < total:
        size *= 2
    return min(size, batch_size)


def concatenate(parts: Iterable[tuple[jax.Array, int]]) -> np.ndarray:
    """Joins padded batches, of which at most `QUEUED` wait for the device at a time.

    Args:
      parts: pairs of a padded batch [b, ...] and the number of its valid rows.

    Returns:
      The valid rows, [n, ...].
    """
    batches: list[tuple[jax.Array, int]] = []
    for part, size in parts:
        batches.append((part, size))
        if len(batches) > QUEUED:
            batches[-1 - QUEUED][0].block_until_ready()
    return np.concatenate([np.asarray(part)[:size] for part, size in batches])
