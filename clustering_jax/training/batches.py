"""Batches of a run's data streams, as pure functions of (seed, step)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import getitem
from typing import Any

import numpy as np
from jax.sharding import Mesh

from clustering_jax.data.base import Dataset, batch_indices, partner_rows
from clustering_jax.data.images.streaming import Lazy, Read, read_ahead
from clustering_jax.method import Phase
from clustering_jax.parallel import batch_rows, local_batch_indices, replicate


def is_resident(streams: Mapping[str, Dataset], limit: int) -> bool:
    """Whether all data sets together are in memory and take at most `limit` bytes, and so live on the device."""
    features = [v for d in streams.values() for v in d.features.values()]
    return not any(isinstance(v, Lazy) for v in features) and sum(v.nbytes for v in features) <= limit


class Feed:
    """Data sets that fit are on every device as a whole and `resident`; others come from the host batch by batch, of
    which each process reads the rows of its own devices; of `Lazy` ones it reads the next batches of a stream ahead.

    seeds: one, or one for each run that trains beside the others: their batches differ.
    """

    def __init__(
        self, streams: Mapping[str, Dataset], *, seeds: Sequence[int], batch_size: int, mesh: Mesh, limit: int
    ):
        self._streams, self._seeds, self._batch_size = streams, seeds, batch_size
        self.resident = is_resident(streams, limit)
        self._batch, self._places = partial(batch_rows, mesh=mesh), local_batch_indices(batch_size, mesh)
        put = partial(replicate, mesh=mesh)
        self._data = {k: put(dict(d.features)) if self.resident else d.features for k, d in streams.items()}
        # By stream and feature: the step that comes next, and the reader that has it.
        self._readers: dict[tuple[str, str], tuple[int, Iterator[Read]]] = {}

    def __call__(
        self, phase: Phase, step: int, count: int, targets: Mapping[str, np.ndarray], length: int
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray], np.ndarray, np.int32]:
        """Steps `step` to ``step + count`` of the phase's stream.

        Returns:
          data and targets (whole arrays when `resident`, else what the one batch holds of them), row numbers int32
          [length, b] ([length, seeds, b] for several seeds, unless the phase takes the whole stream) as "index" and,
          by feature, of partners; epochs int32 [length], and `count`, how many of these are to be taken; the others
          fill up.
        """
        n, data = self._streams[phase.stream].num_examples, self._data[phase.stream]
        steps = np.arange(step, step + count, dtype=np.int32)
        each = [self._rows(phase, int(s), n) for s in steps]
        filled = np.minimum(np.arange(length), count - 1)
        rows = {name: np.stack([found[name] for found in each])[filled] for name in each[0]}
        epochs = (steps if phase.whole else steps // (n // self._batch_size))[filled]
        if not self.resident:
            first = {name: found[0] for name, found in rows.items()}
            if list(first) == ["index"] and not phase.whole:
                data = {k: self._ahead(phase, step, k, v) if isinstance(v, Lazy) else v for k, v in data.items()}
            data = taken(data, first, self._batch)
            targets = {k: self._batch(v, first["index"]) for k, v in targets.items()}
        return dict(data), dict(targets), rows, epochs, np.int32(count)

    def _ahead(self, phase: Phase, step: int, name: str, source: Lazy) -> Read:
        """The rows of `source` that this process needs at `step`; any but the step after the last starts anew."""

        def rows_of(step: int) -> np.ndarray:
            return np.sort(self._rows(phase, step, len(source))["index"][self._places])

        due, reader = self._readers.get((phase.stream, name), (-1, iter(())))
        if step != due:
            reader = read_ahead(source, rows_of, range(step, np.iinfo(np.int32).max))
        self._readers[phase.stream, name] = step + 1, reader
        return next(reader)

    def _rows(self, phase: Phase, step: int, n: int) -> dict[str, np.ndarray]:
        """Rows of a batch and of its partners."""
        partners, blocks = self._streams[phase.stream].partners, self._streams[phase.stream].blocks
        batch, each = partial(batch_indices, step=step, n=n, batch_size=self._batch_size, blocks=blocks), []
        for seed in self._seeds:
            index = np.arange(n, dtype=np.int32) if phase.whole else batch(seed)
            each.append({"index": index, **partner_rows(seed, step, index, partners)})
        if len(each) == 1 or (phase.whole and not partners):
            return each[0]
        return {name: np.stack([found[name] for found in each]) for name in each[0]}


def taken(data: Mapping[str, Any], rows: Mapping[str, Any], take: Callable = getitem) -> dict[str, Any]:
    """Each feature at ``rows["index"]``, and "FEATURE_partner" at ``rows[FEATURE]`` where that is there."""
    own, partners = rows["index"], {name: found for name, found in rows.items() if name != "index"}
    features = {k: take(v, own) for k, v in data.items()}
    return features | {f"{k}_partner": take(data[k], found) for k, found in partners.items()}
