"""The endpoints of `clustering_jax.serve`: every answer is JSON, of errors ``{"error": one line}``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
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
from clustering_jax.serving.requests import FORM, JSON, NUMPY, Limits, Refused, features


class Service:
    """The two endpoints for one model."""

    def __init__(self, model: Model, limits: Limits):
        self._model, self._limits, self._underway = model, limits, 0
        self._batcher = Batcher(model.run, max_batch=limits.max_batch, max_wait=limits.max_wait_ms / 1000)
        self._decoders = ThreadPoolExecutor(2)

    @asynccontextmanager
    async def running(self, _: Starlette) -> AsyncIterator[None]:
        """Computes batches while it is entered."""
        task = asyncio.create_task(self._batcher.serve())
        yield
        task.cancel()

    async def health(self, _: Request) -> JSONResponse:
        told = {name: self._model.manifest[key] for name, key in (("method", "method"), ("clusters", "num_clusters"))}
        limits = {"max_rows": self._limits.max_rows, "max_bytes": self._limits.max_bytes}
        return JSONResponse({"status": "ok", **told, "input": self._model.inputs.told(), **limits})

    async def predict(self, request: Request) -> JSONResponse:
        taken = self._underway < self._limits.max_queue
        self._underway += taken
        try:
            return _answer(await self._probabilities(request, taken), self._model.names)
        except Refused as error:
            return _refusal(error.status, error)
        except UserError as error:
            return _refusal(400, error)
        except HTTPException as error:  # of a form that can't be read
            return _refusal(error.status_code, error.detail)
        except ClientDisconnect:
            return _refusal(400, "the request was cut short")
        except Exception as error:
            print(f"error: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
            return _refusal(500, "the model failed on this request; the server's terminal says how")
        finally:
            self._underway -= taken

    async def _probabilities(self, request: Request, taken: bool) -> np.ndarray:
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        refused = None
        if media not in (JSON, FORM, *NUMPY) and not media.startswith("image/"):
            known = ", ".join((JSON, *NUMPY, "image/...", FORM))
            refused = Refused(415, f"the content type '{media[:40]}' is unknown: send {known}")
        elif not taken:
            refused = Refused(503, f"{self._limits.max_queue} requests are under way: try again")
        async with _timeout(self._limits.timeout, 408, "the request did not come"):
            body = await _body(request, self._limits.max_bytes, refused)
            parts = await _files(request, body, self._limits.max_rows) if media == FORM else [body]
        if not all(parts):
            raise Refused(400, "the request is empty")
        decode = partial(features, media, parts, self._model.inputs, self._limits)
        async with _timeout(self._limits.timeout, 503, "there was no answer"):
            rows = await asyncio.get_running_loop().run_in_executor(self._decoders, decode)
            return await self._batcher(rows)


@asynccontextmanager
async def _timeout(seconds: float, status: int, what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise Refused(status, f"{what} within {seconds:g} s: try again") from error


async def _body(request: Request, most: int, refused: Refused | None) -> bytes:
    """The body; Refused if it has more than `most` bytes, or as told.

    It is read to its end in any case, though not kept, since a client that still sends would not hear the answer.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= most and not refused:
            parts.append(part)
    if refused:
        raise refused
    if size > most:
        raise Refused(413, f"the request has {size} bytes, at most {most} are taken")
    return b"".join(parts)


async def _files(request: Request, body: bytes, most: int) -> list[bytes]:
    """The contents of a form's files, in its order."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    # One more than is taken, so that it is the number of rows that is refused.
    async with Request(request.scope, receive).form(
        max_files=most + 1, max_fields=most, max_part_size=len(body)
    ) as form:
        files = [await value.read() for _, value in form.multi_items() if not isinstance(value, str)]
    if not files:
        raise Refused(400, "the form has no file: send images as files, curl -F file=@photo.jpg")
    return files


def _answer(probabilities: np.ndarray, names: list[list[str]]) -> JSONResponse:
    clusters = probabilities.argmax(1).tolist()
    told = {"names": [names[cluster] for cluster in clusters]} if names else {}
    return JSONResponse({"clusters": clusters, "probabilities": probabilities.tolist(), **told})


def _refusal(status: int, reason: Any, headers: Any = None) -> JSONResponse:
    # It may quote the request, of which a name can be as long as a body.
    return JSONResponse({"error": " ".join(str(reason).split())[:400]}, status, headers)


async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    """404 and 405, in Starlette's words."""
    known = "POST /predict and GET /health are answered"
    reason = f"{request.method} {request.url.path}: {error.detail.lower()}; {known}"
    return _refusal(error.status_code, reason, error.headers)


def application(model: Model, limits: Limits) -> Starlette:
    """The ASGI application."""
    service = Service(model, limits)
    routes = [
        Route("/health", service.health, methods=["GET"]),
        Route("/predict", service.predict, methods=["POST"]),
    ]
    return Starlette(routes=routes, lifespan=service.running, exception_handlers={HTTPException: _http_error})
