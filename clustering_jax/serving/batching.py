"""Dynamic batching: requests that arrive at the same time are computed together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import jax
import numpy as np

Features = dict[str, np.ndarray]


class _PendingRequest(NamedTuple):
    features: Features
    num_rows: int
    result: asyncio.Future


class Batcher:
    """Joins the rows of several requests, calls a function once, and returns to each request its own rows.

    A batch is closed when it has `max_batch` rows, or `max_wait` seconds after the previous batch was finished. While
    one thread computes a batch, the next one fills. A single request may have more than `max_batch` rows.

    Args:
      run: computes the outputs of a batch of features, row by row: an array, or a tuple of arrays.
      max_batch: largest number of rows in a batch of several requests.
      max_wait: seconds to wait for more requests.
    """

    def __init__(self, run: Callable[[Features], Any], *, max_batch: int, max_wait: float):
        self._run, self._max_batch, self._max_wait = run, max_batch, max_wait
        self._pending: deque[_PendingRequest] = deque()
        self._not_empty, self._full = asyncio.Event(), asyncio.Event()
        self._thread = ThreadPoolExecutor(1)

    async def __call__(self, features: Features) -> Any:
        """Computes the outputs of one request.

        Args:
          features: arrays by name, with n rows each.

        Returns:
          The n rows of each array that `run` computed. An exception in `run` is raised here.
        """
        num_rows = len(next(iter(features.values())))
        request = _PendingRequest(features, num_rows, asyncio.get_running_loop().create_future())
        self._pending.append(request)
        self._update_events()
        return await request.result

    async def serve(self) -> None:
        """Computes batches until it is cancelled."""
        while True:
            await self._not_empty.wait()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), self._max_wait)
            await self._compute(self._next_batch())

    def _update_events(self) -> None:
        rows = sum(request.num_rows for request in self._pending)
        for event, is_set in ((self._not_empty, rows > 0), (self._full, rows >= self._max_batch)):
            event.set() if is_set else event.clear()

    def _next_batch(self) -> list[_PendingRequest]:
        """The requests of the next batch in the order of arrival, without requests that were cancelled."""
        batch: list[_PendingRequest] = []
        rows = 0
        while self._pending and (not batch or rows + self._pending[0].num_rows <= self._max_batch):
            request = self._pending.popleft()
            if not request.result.done():
                batch.append(request)
                rows += request.num_rows
        self._update_events()
        return batch

    async def _compute(self, batch: list[_PendingRequest]) -> None:
        if not batch:
            return
        try:
            joined = {name: np.concatenate([r.features[name] for r in batch]) for name in batch[0].features}
            outputs = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, joined)
        except Exception as error:
            for request in batch:
                _finish(request.result, error)
            return
        ends = np.cumsum([request.num_rows for request in batch])
        for request, end in zip(batch, ends, strict=True):
            own = slice(end - request.num_rows, end)
            _finish(request.result, jax.tree.map(lambda output, own=own: output[own], outputs))


def _finish(result: asyncio.Future, value: Any) -> None:
    if result.done():  # The client has gone away.
        return
    result.set_exception(value) if isinstance(value, Exception) else result.set_result(value)
