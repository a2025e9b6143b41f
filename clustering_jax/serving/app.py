"""The HTTP endpoints of `clustering_jax.serve`. Every response is JSON; an error is ``{"error": "one line"}``."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from clustering_jax.errors import UserError
from clustering_jax.serving.artefact import Model
from clustering_jax.serving.batching import Batcher
from clustering_jax.serving.requests import FORM, JSON, NUMPY, Limits, RefusedRequest, decode_features


class Service:
    """The two endpoints for one model.

    Args:
      model: the exported model that computes the predictions.
      limits: limits on the size, the number and the time of requests.
    """

    def __init__(self, model: Model, limits: Limits):
        self._model, self._limits, self._num_pending = model, limits, 0
        self._batcher = Batcher(model.run, max_batch=limits.max_batch, max_wait=limits.max_wait_ms / 1000)
        self._decoders = ThreadPoolExecutor(2)
        self._ended = threading.Event()

    @asynccontextmanager
    async def running(self, _: Starlette) -> AsyncIterator[None]:
        """A context manager that computes batches while it is active."""
        task = asyncio.create_task(self._batcher.serve())
        yield
        # Decoding ends at its next image, and what waits for it is given up: the process must not wait for hours.
        self._ended.set()
        self._decoders.shutdown(wait=False, cancel_futures=True)
        task.cancel()

    async def health(self, _: Request) -> JSONResponse:
        """``GET /health``: the method, the number of clusters, the accepted input and the limits."""
        manifest, limits = self._model.manifest, self._limits
        return JSONResponse(
            {
                "status": "ok",
                "method": manifest["method"],
                "clusters": manifest["num_clusters"],
                "input": self._model.inputs.describe(),
                "max_rows": limits.max_rows,
                "max_bytes": limits.max_bytes,
            }
        )

    async def predict(self, request: Request) -> JSONResponse:
        """``POST /predict``: the cluster and the probabilities of each row of the request."""
        accepted = self._num_pending < self._limits.max_queue
        self._num_pending += accepted
        try:
            return _prediction_response(await self._probabilities(request, accepted), self._model.names)
        except RefusedRequest as error:
            return _error_response(error.status, error)
        except UserError as error:
            return _error_response(400, error)
        except HTTPException as error:  # Starlette cannot parse the form.
            return _error_response(error.status_code, error.detail)
        except ClientDisconnect:
            return _error_response(400, "the client closed the connection before the request was complete")
        except Exception as error:
            print(f"error: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
            return _error_response(500, "the model failed on this request; the server's terminal shows the error")
        finally:
            self._num_pending -= accepted

    async def _probabilities(self, request: Request, accepted: bool) -> np.ndarray:
        """Soft assignments [n, k] of the rows of a request; `accepted` is False if the queue is full."""
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        refusal = None
        if media not in (JSON, FORM, *NUMPY) and not media.startswith("image/"):
            known = ", ".join((JSON, *NUMPY, "image/...", FORM))
            refusal = RefusedRequest(415, f"the content type '{media[:40]}' is unknown: send {known}")
        elif not accepted:
            refusal = RefusedRequest(503, f"{self._limits.max_queue} requests are pending: try again")
        async with _timeout(self._limits.timeout, 408, "the request did not arrive"):
            body = await _read_body(request, self._limits.max_bytes, refusal)
            parts = await _read_files(request, body, self._limits.max_rows) if media == FORM else [body]
        if not all(parts):
            raise RefusedRequest(400, "the request is empty")
        late = threading.Event()
        decode = partial(decode_features, media, parts, self._model.inputs, self._limits, self._given_up(late))
        try:
            async with _timeout(self._limits.timeout, 503, "there was no answer"):
                rows = await asyncio.get_running_loop().run_in_executor(self._decoders, decode)
                return await self._batcher(rows)
        finally:
            late.set()  # a request that is answered already is not decoded any further

    def _given_up(self, late: threading.Event) -> Callable[[], bool]:
        return lambda: late.is_set() or self._ended.is_set()


@asynccontextmanager
async def _timeout(seconds: float, status: int, event: str) -> AsyncIterator[None]:
    """Raises RefusedRequest with `status` if the block takes longer than `seconds`; `event` begins the message."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise RefusedRequest(status, f"{event} within {seconds:g} s: try again") from error


async def _read_body(request: Request, max_bytes: int, refusal: RefusedRequest | None) -> bytes:
    """Reads the body of a request.

    The body is always read to its end, because a client that is still sending does not read the response. Bytes that
    are not needed are not kept.

    Args:
      request: the request.
      max_bytes: largest accepted size of the body.
      refusal: an exception to raise after the body has been read, or None.

    Returns:
      The body.

    Raises:
      RefusedRequest: `refusal`, or the body has more than `max_bytes` bytes.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= max_bytes and not refusal:
            parts.append(part)
    if refusal:
        raise refusal
    if size > max_bytes:
        raise RefusedRequest(413, f"the request has {size} bytes, at most {max_bytes} are accepted")
    return b"".join(parts)


async def _read_files(request: Request, body: bytes, max_files: int) -> list[bytes]:
    """The contents of the files of a form, in the order of the form."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    # Starlette accepts one file more, so that our own message about too many rows is sent.
    async with Request(request.scope, receive).form(
        max_files=max_files + 1, max_fields=max_files, max_part_size=len(body)
    ) as form:
        files = [await value.read() for _, value in form.multi_items() if not isinstance(value, str)]
    if not files:
        raise RefusedRequest(400, "the form has no file: send images as files, curl -F file=@photo.jpg")
    return files


def _prediction_response(probabilities: np.ndarray, names: list[list[str]]) -> JSONResponse:
    clusters = probabilities.argmax(1).tolist()
    words = {"names": [names[cluster] for cluster in clusters]} if names else {}
    return JSONResponse({"clusters": clusters, "probabilities": probabilities.tolist(), **words})


def _error_response(status: int, reason: Any, headers: Any = None) -> JSONResponse:
    # The reason may quote the request, and a name in a request can be as long as its body.
    return JSONResponse(
        {"error": " ".join(str(reason).split())[:400].encode("utf-8", "replace").decode()}, status, headers
    )


async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    """The response to an unknown path (404) or method (405), with Starlette's text."""
    known = "this server answers POST /predict and GET /health"
    reason = f"{request.method} {request.url.path}: {error.detail.lower()}; {known}"
    return _error_response(error.status_code, reason, error.headers)


def application(model: Model, limits: Limits) -> Starlette:
    """Builds the ASGI application.

    Args:
      model: the exported model that computes the predictions.
      limits: limits on the size, the number and the time of requests.

    Returns:
      The application, with the routes ``/health`` and ``/predict``.
    """
    service = Service(model, limits)
    routes = [
        Route("/health", service.health, methods=["GET"]),
        Route("/predict", service.predict, methods=["POST"]),
    ]
    handlers: Any = {HTTPException: _http_error}
    return Starlette(routes=routes, lifespan=service.running, exception_handlers=handlers)
