"""Requests that come at the same time are computed together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import numpy as np

Features = dict[str, np.ndarray]


class _Waiting(NamedTuple):
    features: Features
    rows: int
    answer: asyncio.Future


class Batcher:
    """Gathers rows of several requests for one call of `run`, and gives each its own rows of what comes back.

    A batch closes at `max_batch` rows or `max_wait` seconds after the loop could take it, and meanwhile the one before
    it is computed, by one thread. A single request may have more rows than that.
    """

    def __init__(self, run: Callable[[Features], np.ndarray], *, max_batch: int, max_wait: float):
        self._run, self._max_batch, self._max_wait = run, max_batch, max_wait
        self._waiting: deque[_Waiting] = deque()
        self._some, self._enough = asyncio.Event(), asyncio.Event()
        self._thread = ThreadPoolExecutor(1)

    async def __call__(self, features: Features) -> np.ndarray:
        """What `run` makes of `features`, n rows in each; raises what `run` raises."""
        rows = len(next(iter(features.values())))
        request = _Waiting(features, rows, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._mark()
        return await request.answer

    async def serve(self) -> None:
        """Answers until it is cancelled."""
        while True:
            await self._some.wait()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._enough.wait(), self._max_wait)
            await self._answer(self._take())

    def _mark(self) -> None:
        rows = sum(request.rows for request in self._waiting)
        for event, is_set in ((self._some, rows > 0), (self._enough, rows >= self._max_batch)):
            event.set() if is_set else event.clear()

    def _take(self) -> list[_Waiting]:
        """The requests of the next batch, first come, first served; whoever has given up is passed over."""
        taken: list[_Waiting] = []
        rows = 0
        while self._waiting and (not taken or rows + self._waiting[0].rows <= self._max_batch):
            request = self._waiting.popleft()
            if not request.answer.done():
                taken.append(request)
                rows += request.rows
        self._mark()
        return taken

    async def _answer(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        try:
            joined = {name: np.concatenate([r.features[name] for r in batch]) for name in batch[0].features}
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, joined)
        except Exception as error:
            for request in batch:
                _settle(request.answer, error)
            return
        ends = np.cumsum([request.rows for request in batch])
        for request, rows in zip(batch, np.split(found, ends[:-1]), strict=True):
            _settle(request.answer, rows)


def _settle(answer: asyncio.Future, value: np.ndarray | Exception) -> None:
    if answer.done():  # given up meanwhile
        return
    answer.set_exception(value) if isinstance(value, Exception) else answer.set_result(value)
