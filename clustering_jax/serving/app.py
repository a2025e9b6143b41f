"""The HTTP endpoints of `clustering_jax.serve`. An answer is JSON, except ``/metrics`` and ``/docs``.

An error is ``{"error": "one line"}``.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cached_property, partial
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from clustering_jax import __version__
from clustering_jax.errors import UserError
from clustering_jax.serving import answers, bodies
from clustering_jax.serving.answers import Health, NoOptions, Options, Prediction, Problem, Ready
from clustering_jax.serving.artefact import Model, Outputs
from clustering_jax.serving.batching import Batcher
from clustering_jax.serving.observed import Metrics, Observed
from clustering_jax.serving.requests import FORM, JSON, NUMPY, Limits, RefusedRequest, decode_features

PROBLEMS: dict[int | str, dict[str, Any]] = {"4XX": {"model": Problem}, "5XX": {"model": Problem}}
ENDPOINTS = ("/predict", "/health", "/ready", "/metrics", "/openapi.json", "/docs")


class Service:
    """The endpoints for one model.

    Args:
      model: the exported model that computes the predictions.
      limits: limits on the size, the number and the time of requests.
      name: name of the model in answers; "" takes the name of its directory.
    """

    def __init__(self, model: Model, limits: Limits, name: str = ""):
        self._model, self._limits, self._name, self._num_pending = model, limits, name, 0
        self.metrics = Metrics(lambda: self._num_pending)
        run = self.metrics.batch(model.run)
        self._batcher = Batcher(run, max_batch=limits.max_batch, max_wait=limits.max_wait_ms / 1000)
        self._batches: asyncio.Task | None = None
        self._decoders = ThreadPoolExecutor(2)
        self._ended = threading.Event()

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """A context manager that computes batches while it is active."""
        self._batches = asyncio.create_task(self._batcher.serve())
        yield
        # Decoding ends at its next image, and what waits for it is given up: the process must not wait for hours.
        self._ended.set()
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._batches.cancel()

    @cached_property
    def facts(self) -> Health:
        """The model, what it takes, and the limits."""
        model, manifest = self._model, self._model.manifest
        return Health(
            name=self._name or model.name,
            digest=model.digest,
            version=__version__,
            exported_by=manifest["versions"]["clustering_jax"],
            method=manifest["method"],
            clusters=manifest["num_clusters"],
            input=model.inputs.describe(),
            max_rows=self._limits.max_rows,
            max_bytes=self._limits.max_bytes,
        )

    async def health(self, _: Annotated[NoOptions, Query()]) -> Health:
        """The model, what it takes, and the limits. It answers as long as the process works."""
        return self.facts

    async def ready(self, _: Annotated[NoOptions, Query()]) -> Response:
        """Whether the server accepts requests: 503 while its queue is full, and when it can't compute batches."""
        if not self._batches or self._batches.done():
            return _error_response(503, "no batches are computed any more: restart the server")
        if self._num_pending >= self._limits.max_queue:
            return _error_response(503, self._full())
        return JSONResponse(Ready().model_dump())

    async def metrics_text(self, _: Annotated[NoOptions, Query()]) -> Response:
        """Counts and times of requests, rows and batches in Prometheus' text format, and the model's digest."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def predict(self, request: Request, options: Annotated[Options, Query()]) -> Response:
        """The cluster and the probabilities of each row or file of the request."""
        accepted = self._num_pending < self._limits.max_queue
        self._num_pending += accepted
        try:
            return JSONResponse(await self._prediction(request, options, accepted))
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

    async def _prediction(self, request: Request, options: Options, accepted: bool) -> dict[str, Any]:
        """The answer to a request as JSON data; `accepted` is False if the queue is full."""
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await bodies.read(request, media, self._limits, self._refusal(media, options, accepted))
        outputs = await self._outputs(media, body)
        request.state.facts = {"rows": len(outputs.probabilities)}
        return answers.prediction(outputs, options, self._model.names, body.files)

    def _refusal(self, media: str, options: Options, accepted: bool) -> RefusedRequest | None:
        """Why a request is refused whatever its body is; None if it is not."""
        if media not in (JSON, FORM, *NUMPY) and not media.startswith("image/"):
            known = ", ".join((JSON, *NUMPY, "image/...", FORM))
            return RefusedRequest(415, f"the content type '{media[:40]}' is unknown: send {known}")
        if options.top_k > self.facts.clusters:
            return RefusedRequest(400, f"top_k is {options.top_k}, the model has {self.facts.clusters} clusters")
        return None if accepted else RefusedRequest(503, self._full())

    def _full(self) -> str:
        return f"{self._limits.max_queue} requests are pending: try again"

    async def _outputs(self, media: str, body: bodies.Body) -> Outputs:
        late, inputs, limits = threading.Event(), self._model.inputs, self._limits
        decode = partial(decode_features, media, body.parts, inputs, limits, self._given_up(late), body.files)
        try:
            async with bodies.timeout(limits.timeout, 503, "there was no answer"):
                rows = await asyncio.get_running_loop().run_in_executor(self._decoders, decode)
                return await self._batcher(rows)
        finally:
            late.set()  # a request that is answered already is not decoded any further

    def _given_up(self, late: threading.Event) -> Callable[[], bool]:
        return lambda: late.is_set() or self._ended.is_set()

    async def refused_query(self, request: Request, error: RequestValidationError) -> Response:
        """The response to an unknown or wrong query parameter (400)."""
        await bodies.drain(request, self._limits)
        known = Options.model_fields if request.url.path == "/predict" else ()
        return _error_response(400, answers.query_problem(error.errors(), known))


def _error_response(status: int, reason: Any, headers: Any = None) -> JSONResponse:
    # The reason may quote the request, and a name in a request can be as long as its body.
    return JSONResponse(
        {"error": " ".join(str(reason).split())[:400].encode("utf-8", "replace").decode()}, status, headers
    )


async def _http_error(request: Request, error: HTTPException) -> Response:
    """The response to an unknown path (404) or method (405), with Starlette's text."""
    known = "this server answers POST /predict, and GET /health, /ready, /metrics and /docs"
    reason = f"{request.method} {request.url.path}: {error.detail.lower()}; {known}"
    return _error_response(error.status_code, reason, error.headers)


def application(model: Model, limits: Limits, name: str = "") -> FastAPI:
    """Builds the ASGI application.

    Args:
      model: the exported model that computes the predictions.
      limits: limits on the size, the number and the time of requests.
      name: name of the model in answers; "" takes the name of its directory.

    Returns:
      The application, with the routes `ENDPOINTS`.
    """
    service = Service(model, limits, name)
    service.metrics.describe(service.facts.model_dump(include={"name", "digest", "method", "version"}))
    handlers: Any = {HTTPException: _http_error, RequestValidationError: service.refused_query}
    app = FastAPIOffline(
        title=f"{service.facts.name} ({service.facts.method})",
        version=__version__,
        redoc_url=None,
        # Swagger UI would send the schema to a validator in the Internet.
        swagger_ui_parameters={"validatorUrl": None},
        lifespan=service.running,
        exception_handlers=handlers,
    )
    app.add_middleware(Observed, metrics=service.metrics, paths=frozenset(ENDPOINTS))
    _add_routes(app, service, model)
    return app


def _add_routes(app: FastAPI, service: Service, model: Model) -> None:
    def add(path: str, endpoint: Callable, answer: dict[str, Any], method: str = "GET", **options: Any) -> None:
        described = {200: answer, **PROBLEMS}
        app.add_api_route(path, endpoint, methods=[method], responses=described, **options)
        if method == "GET":  # Some probes send HEAD.
            app.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)

    body = answers.request_body(model.inputs)
    add("/predict", service.predict, {"model": Prediction}, "POST", openapi_extra=body)
    add("/health", service.health, {"model": Health})
    add("/ready", service.ready, {"model": Ready})
    add("/metrics", service.metrics_text, {"content": {"text/plain": {}}}, response_class=Response)
