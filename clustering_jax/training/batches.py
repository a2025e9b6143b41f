"""The batches of a run's data streams, as pure functions of (seed, step)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import getitem
from typing import Any

import numpy as np
from jax.sharding import Mesh

from clustering_jax.data.base import Dataset, batch_indices, partner_rows
from clustering_jax.data.images.streaming import LazyArray, RowSubset, read_ahead
from clustering_jax.errors import UserError
from clustering_jax.method import Phase
from clustering_jax.parallel import batch_rows, data_mesh, local_batch_indices, replicate


def is_resident(streams: Mapping[str, Dataset], limit: int) -> bool:
    """Returns whether all data sets can be kept on the device.

    Args:
      streams: data sets by name.
      limit: the most bytes that all of them together may take. A `LazyArray` is never resident.
    """
    features = [v for d in streams.values() for v in d.features.values()]
    return not any(isinstance(v, LazyArray) for v in features) and sum(v.nbytes for v in features) <= limit


# Methods whose batch is all rows, up to the batch size. Fewer rows are nothing to warn of.
UP_TO = ("turtle",)


def batch_size_of(config: Mapping[str, Any], streams: Mapping[str, Dataset]) -> int:
    """Returns the batch size of a run, which is at most the number of examples. It warns if that reduces it.

    Args:
      config: the config of the run, with the number of clusters.
      streams: data sets by name.

    Raises:
      UserError: the number of clusters, the batch size or the number of epochs can't be used.
    """
    k, n = config["num_clusters"], streams["train"].num_examples
    wanted = config["batch_size"] or n
    smallest = min(d.num_examples for d in streams.values())
    if not 2 <= k <= n:
        raise UserError(f"num_clusters is {k}: choose between 2 and the number of examples, {n}")
    if wanted < 2:
        raise UserError(f"batch_size is {wanted}: choose at least 2, or 0 for all examples")
    if config["epochs"] < (0 if config["init_from"] else 1):
        raise UserError(f"epochs is {config['epochs']}: nothing would be trained (0 needs init_from)")
    if smallest < wanted and config["method"] not in UP_TO:
        warnings.warn(f"only {smallest} examples: batch size {smallest} instead of {wanted}", stacklevel=2)
    size = min(wanted, smallest)
    data_mesh(size)  # Raises UserError if several processes can't divide a batch.
    return size


class Feed:
    """Gives the batches of a run to its compiled update.

    If all data sets fit on the device, they are `resident`: every device holds all of them, and the update gathers the
    rows. Otherwise each process reads from the host, one batch at a time, the rows for its own devices. It prefetches
    the next batches of a `LazyArray`.

    Args:
      streams: data sets by the names that the phases use.
      seed_list: one seed for each run that trains side by side. Each seed has its own batches.
      batch_size: global batch size, over all devices.
      mesh: the devices.
      limit: the most bytes of resident data, see `is_resident`.
    """

    def __init__(
        self, streams: Mapping[str, Dataset], *, seed_list: Sequence[int], batch_size: int, mesh: Mesh, limit: int
    ):
        self._streams, self._seed_list, self._batch_size = streams, seed_list, batch_size
        self.resident = is_resident(streams, limit)
        self._batch, self._local_indices = partial(batch_rows, mesh=mesh), local_batch_indices(batch_size, mesh)
        self._mesh = mesh
        self._data = {k: self.place(d.features) for k, d in streams.items()}
        # By stream and feature: the next step, and the reader that prefetches it.
        self._readers: dict[tuple[str, str], tuple[int, Iterator[RowSubset]]] = {}

    def place(self, arrays: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns arrays [n, ...], such as targets, where the update reads them: on the devices if `resident`."""
        return replicate(dict(arrays), self._mesh) if self.resident else arrays

    def __call__(
        self, phase: Phase, step: int, count: int, targets: Mapping[str, Any], length: int
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray], np.ndarray, np.int32]:
        """Returns the arguments of the compiled update for steps `step` to ``step + count`` of the phase's stream.

        Args:
          phase: the phase that the steps belong to.
          step: the first step, counted within the stream.
          count: number of steps, 1 to `length`; 1 if the data are not resident.
          targets: arrays [n, ...] by name, as `place` returns them.
          length: number of steps in the result. Steps beyond `count` repeat the last one.

        Returns:
          ``(data, targets, rows, epochs, count)``. If `resident`, data and targets are whole arrays, otherwise the
          rows of the one batch. rows holds row numbers by name: "index", and each feature with partners. They are
          int32 [length, b], or [length, seeds, b] for several seeds, unless the phase takes the whole stream. epochs
          is int32 [length].
        """
        n, data = self._streams[phase.stream].num_examples, self._data[phase.stream]
        steps = np.arange(step, step + count, dtype=np.int32)
        rows_of_steps = [self._rows(phase, int(s), n) for s in steps]
        padded = np.minimum(np.arange(length), count - 1)
        rows = {name: np.stack([rows[name] for rows in rows_of_steps])[padded] for name in rows_of_steps[0]}
        epochs = (steps if phase.whole else steps // (n // self._batch_size))[padded]
        if not self.resident:
            first = {name: numbers[0] for name, numbers in rows.items()}
            if list(first) == ["index"] and not phase.whole:
                lazy = {k: v for k, v in data.items() if isinstance(v, LazyArray)}
                data = {**data, **{k: self._read_ahead(phase, step, k, v) for k, v in lazy.items()}}
            data = take_rows(data, first, self._batch)
            targets = {k: self._batch(v, first["index"]) for k, v in targets.items()}
        return dict(data), dict(targets), rows, epochs, np.int32(count)

    def _read_ahead(self, phase: Phase, step: int, name: str, source: LazyArray) -> RowSubset:
        """Returns the rows of `source` that this process needs at `step`.

        The reader prefetches the next steps. A step other than the next one starts a new reader.
        """

        def rows_of(step: int) -> np.ndarray:
            return np.sort(self._rows(phase, step, len(source))["index"][self._local_indices])

        next_step, reader = self._readers.get((phase.stream, name), (-1, iter(())))
        if step != next_step:
            reader = read_ahead(source, rows_of, range(step, np.iinfo(np.int32).max))
        self._readers[phase.stream, name] = step + 1, reader
        return next(reader)

    def _rows(self, phase: Phase, step: int, n: int) -> dict[str, np.ndarray]:
        """Returns the row numbers of a batch and of its partners, stacked if there are several seeds."""
        partners, blocks = self._streams[phase.stream].partners, self._streams[phase.stream].blocks
        batch = partial(batch_indices, step=step, n=n, batch_size=self._batch_size, blocks=blocks)
        rows_of_seeds = []
        for seed in self._seed_list:
            index = np.arange(n, dtype=np.int32) if phase.whole else batch(seed)
            rows_of_seeds.append({"index": index, **partner_rows(seed, step, index, partners)})
        if len(rows_of_seeds) == 1 or (phase.whole and not partners):
            return rows_of_seeds[0]
        return {name: np.stack([rows[name] for rows in rows_of_seeds]) for name in rows_of_seeds[0]}


def take_rows(data: Mapping[str, Any], rows: Mapping[str, Any], take: Callable = getitem) -> dict[str, Any]:
    """Gathers the rows of a batch.

    Args:
      data: arrays [n, ...] by feature.
      rows: row numbers [b]: those of the batch as "index", those of the partners by feature.
      take: ``(array, row numbers) -> rows``.

    Returns:
      Each feature at ``rows["index"]``; and "FEATURE_partner" at ``rows[FEATURE]`` for each feature with partners.
    """
    partners = {name: numbers for name, numbers in rows.items() if name != "index"}
    features = {k: take(v, rows["index"]) for k, v in data.items()}
    return features | {f"{k}_partner": take(data[k], numbers) for k, numbers in partners.items()}
