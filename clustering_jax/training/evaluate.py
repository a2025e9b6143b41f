"""Inference over a whole data set in its own order, and the scores of what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import jax
import numpy as np

from clustering_jax.data.images.streaming import Lazy, read_ahead
from clustering_jax.parallel import batch_rows, batch_sharding, data_mesh, local_batch_indices, replicate, replicated

# Enough that the device never waits; the rows of more would fill the memory.
QUEUED = 8


def make_infer(function: Callable, batch_size: int) -> Callable:
    """Compiles ``(variables, batch) -> [n, ...]`` for any number of rows.

    Returns ``infer(variables, features)``: `features` is a dictionary of arrays ``[n, ...]`` (memory maps too), read
    `batch_size` rows at a time, `Lazy` ones ahead; the last batch is padded by its first row, so one compiled shape
    serves all. With several processes each reads its part of a batch, and gets all of the result.
    """
    mesh = data_mesh(batch_size)
    places = local_batch_indices(batch_size, mesh)
    rows, whole = batch_sharding(mesh), replicated(mesh)
    apply = jax.jit(function, in_shardings=(whole, rows), out_shardings=rows if jax.process_count() == 1 else whole)

    def chunks(variables, features: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
        total = len(next(iter(features.values())))
        starts = range(0, total, batch_size)

        def index_of(number: int) -> np.ndarray:
            index = starts[number] + np.arange(batch_size)
            return np.where(index < total, index, starts[number])

        def rows_of(number: int) -> np.ndarray:
            return np.unique(index_of(number)[places])

        ahead = {k: read_ahead(v, rows_of, range(len(starts))) for k, v in features.items() if isinstance(v, Lazy)}
        for number, start in enumerate(starts):
            read = {**features, **{k: next(reader) for k, reader in ahead.items()}}
            batch = {k: batch_rows(v, index_of(number), mesh) for k, v in read.items()}
            yield apply(variables, batch), min(batch_size, total - start)

    def infer(variables, features: Mapping[str, np.ndarray]) -> np.ndarray:
        return concatenate(chunks(replicate(variables, mesh), features))

    return infer


def concatenate(parts: Iterable[tuple[jax.Array, int]]) -> np.ndarray:
    """Joins ``(padded batch, rows that count)``, of which no more than `QUEUED` wait for the device at a time."""
    found = []
    for part, size in parts:
        found.append((part, size))
        if len(found) > QUEUED:
            found[-1 - QUEUED][0].block_until_ready()
    return np.concatenate([np.asarray(part)[:size] for part, size in found])
