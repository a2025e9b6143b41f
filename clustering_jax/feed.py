"""Batches of a run's data streams, as pure functions of (seed, step)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from clustering_jax.data.base import Dataset, batch_indices
from clustering_jax.method import Phase
from clustering_jax.parallel import replicated


def is_resident(streams: Mapping[str, Dataset], limit: int) -> bool:
    """Whether all data sets together take at most `limit` bytes, and so live on the device."""
    return sum(v.nbytes for d in streams.values() for v in d.features.values()) <= limit


class Feed:
    """Data sets that fit are on every device as a whole and `resident`; others come from the host batch by batch.

    seeds: one, or one for each run that trains beside the others: their batches differ.
    """

    def __init__(
        self, streams: Mapping[str, Dataset], *, seeds: Sequence[int], batch_size: int, mesh: Mesh, limit: int
    ):
        self._sizes = {name: d.num_examples for name, d in streams.items()}
        self._seeds, self._batch_size = seeds, batch_size
        self.resident = is_resident(streams, limit)
        put = partial(jax.device_put, device=replicated(mesh))
        self._data = {k: put(dict(d.features)) if self.resident else d.features for k, d in streams.items()}

    def __call__(
        self, phase: Phase, step: int, count: int, targets: Mapping[str, np.ndarray], length: int
    ) -> tuple[dict[str, Any], dict[str, Any], np.ndarray, np.ndarray, np.int32]:
        """Steps `step` to ``step + count`` of the phase's stream.

        Returns:
          data and targets (whole arrays when `resident`, else the rows of the one batch), row numbers int32 [length, b]
          ([length, seeds, b] for several seeds, unless the phase takes the whole stream), epochs int32 [length], and
          `count`, how many of these are to be taken; the others fill up.
        """
        n, data = self._sizes[phase.stream], self._data[phase.stream]
        steps = np.arange(step, step + count, dtype=np.int32)
        if phase.whole:
            indices, epochs = np.tile(np.arange(n, dtype=np.int32), (count, 1)), steps
        else:
            indices = np.stack([self._batch(int(s), n) for s in steps])
            epochs = steps // (n // self._batch_size)
        if not self.resident:
            data, targets = ({k: v[indices[0]] for k, v in rows.items()} for rows in (data, targets))
        filled = np.minimum(np.arange(length), count - 1)
        return dict(data), dict(targets), indices[filled], epochs[filled], np.int32(count)

    def _batch(self, step: int, n: int) -> np.ndarray:
        each = [batch_indices(seed, step, n, self._batch_size) for seed in self._seeds]
        return np.stack(each) if len(each) > 1 else each[0]
