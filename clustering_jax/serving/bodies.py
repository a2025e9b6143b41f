"""Reads the bodies of HTTP requests, within limits on their size and their time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from starlette.requests import ClientDisconnect, Request

from clustering_jax.serving.requests import FORM, Limits, RefusedRequest, quoted


class Body(NamedTuple):
    """The body of a request.

    Attributes:
      parts: the body itself, or the content of each file of a form.
      files: the name of each file of a form; empty for other bodies.
    """

    parts: list[bytes]
    files: list[str]


@asynccontextmanager
async def timeout(seconds: float, status: int, event: str) -> AsyncIterator[None]:
    """Raises RefusedRequest with `status` if the block takes longer than `seconds`; `event` begins the message."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise RefusedRequest(status, f"{event} within {seconds:g} s: try again") from error


async def read(request: Request, media: str, limits: Limits, refusal: RefusedRequest | None) -> Body:
    """Reads the body of a request.

    The body is always read to its end, because a client that is still sending does not read the response. Bytes that
    are not needed are not kept.

    Args:
      request: the request.
      media: its content type.
      limits: the limits of the server.
      refusal: an exception to raise after the body has been read, or None.

    Returns:
      The body.

    Raises:
      RefusedRequest: `refusal`; or the body, or one of its files, is empty, too large, or too late.
    """
    async with timeout(limits.timeout, 408, "the request did not arrive"):
        data = await _read_bytes(request, limits.max_bytes, refusal)
        body = await _read_form(request, data, limits.max_rows) if media == FORM else Body([data], [])
    for part, name in zip(body.parts, body.files or ["the request"], strict=True):
        if not part:
            raise RefusedRequest(400, f"{quoted(name) if body.files else name} is empty")
    return body


async def drain(request: Request, limits: Limits) -> None:
    """Reads and drops the body of a request that is refused for another reason."""
    with suppress(RefusedRequest, ClientDisconnect):
        async with timeout(limits.timeout, 408, "the request did not arrive"):
            await _read_bytes(request, 0, None)


async def _read_bytes(request: Request, max_bytes: int, refusal: RefusedRequest | None) -> bytes:
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


async def _read_form(request: Request, data: bytes, max_files: int) -> Body:
    """The files of a form, in the order of the form."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": data, "more_body": False}

    # Starlette accepts one file more, so that our own message about too many rows is sent.
    async with Request(request.scope, receive).form(
        max_files=max_files + 1, max_fields=max_files, max_part_size=len(data)
    ) as form:
        files = [value for _, value in form.multi_items() if not isinstance(value, str)]
        body = Body([await file.read() for file in files], [file.filename or "" for file in files])
    if not files:
        raise RefusedRequest(400, "the form has no file: send images as files, curl -F file=@photo.jpg")
    return body
