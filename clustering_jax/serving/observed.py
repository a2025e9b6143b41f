"""What an operator sees of the server: Prometheus metrics, and one line of the access log for each request."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ACCESS_LOG = logging.getLogger("clustering_jax.access")
ACCESS_LOG.propagate = False
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The metrics of one server, in a registry of their own.

    Args:
      num_pending: the number of requests that are pending.
    """

    def __init__(self, num_pending: Callable[[], int]):
        self._registry = CollectorRegistry()
        options: dict[str, Any] = {"namespace": "clustering_jax", "registry": self._registry}
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._model = Info("model", "The model that is served.", **options)
        Gauge("pending_requests", "Requests to /predict that are not answered yet.", **options).set_function(
            num_pending
        )
        labels = ("method", "path", "status")
        self._requests = Counter("requests", "Answered requests.", labels, **options)
        self._seconds = Histogram("request_seconds", "Time to answer.", ("path",), buckets=SECONDS, **options)
        self._rows = Counter("rows", "Rows that were predicted.", **options)
        self._batch_rows = Histogram("batch_rows", "Rows computed together.", buckets=ROWS, **options)
        self._batch_seconds = Histogram("batch_seconds", "Time to compute a batch.", buckets=SECONDS, **options)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self, model: Mapping[str, str]) -> None:
        """Sets the labels of the metric `clustering_jax_model_info`."""
        self._model.info(dict(model))

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        """Counts an answered request."""
        self._requests.labels(method, path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, run: Callable[[dict], Any]) -> Callable[[dict], Any]:
        """Wraps the function that computes a batch, so that its rows and its time are counted."""

        def counted(features: dict) -> Any:
            num_rows = len(next(iter(features.values())))
            with self._batch_seconds.time():
                outputs = run(features)
            self._batch_rows.observe(num_rows)
            self._rows.inc(num_rows)
            return outputs

        return counted


class Observed:
    """Middleware that counts and logs every request.

    Args:
      app: the application.
      metrics: where requests are counted.
      paths: the paths that are counted under their own name; all others are counted as "other", so that clients can't
        create metrics without end.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]):
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, see the specification of ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        answer, start = {"status": 500, "bytes": 0}, time.perf_counter()

        async def seen(message: Message) -> None:
            answer["status"] = message.get("status", answer["status"])
            answer["bytes"] += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, seen)
        finally:
            self._record(scope, answer, time.perf_counter() - start)

    def _record(self, scope: Scope, answer: dict[str, int], seconds: float) -> None:
        path, method = scope["path"], scope["method"]
        known = method if method in ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH") else "other"
        self._metrics.request(known, path if path in self._paths else "other", answer["status"], seconds)
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client": (scope.get("client") or [""])[0],
            "method": method[:20],
            "path": path[:200],
            "query": scope["query_string"][:200].decode("latin-1"),
            **answer,
            "ms": round(1000 * seconds, 1),
            **scope.get("state", {}).get("facts", {}),
        }
        # JSON escapes line ends and control characters: a path can't write a line of its own.
        ACCESS_LOG.info("%s", json.dumps(line))
