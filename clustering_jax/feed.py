"""Batches of a run's data streams, as pure functions of (seed, step)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from clustering_jax.data.base import Dataset, batch_indices
from clustering_jax.parallel import replicated


class Feed:
    """Data sets that fit are on every device as a whole and `resident`; others come from the host batch by batch."""

    def __init__(self, streams: Mapping[str, Dataset], *, seed: int, batch_size: int, mesh: Mesh, limit: int):
        self._sizes = {name: d.num_examples for name, d in streams.items()}
        self._seed, self._batch_size = seed, batch_size
        self.resident = sum(v.nbytes for d in streams.values() for v in d.features.values()) <= limit
        put = partial(jax.device_put, device=replicated(mesh))
        self._data = {k: put(dict(d.features)) if self.resident else d.features for k, d in streams.items()}

    def __call__(
        self, stream: str, step: int, count: int, targets: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
        """Steps `step` to ``step + count`` of a stream.

        Returns:
          source (whole arrays when `resident`, else the rows of the one batch), row numbers int32 [count, b], epochs
          int32 [count].
        """
        n = self._sizes[stream]
        steps = np.arange(step, step + count, dtype=np.int32)
        indices = np.stack([batch_indices(self._seed, int(s), n, self._batch_size) for s in steps])
        source = {**self._data[stream], **targets}
        if not self.resident:
            source = {k: v[indices[0]] for k, v in source.items()}
        return source, indices, steps // (n // self._batch_size)
