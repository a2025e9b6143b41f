"""What the server asks of a connection before it reads a request, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Collection
from typing import Any

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from clustering_jax.serving.requests import Limits

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
# Seconds after the last response may be sent, until a process that does not end is ended.
GRACE = 5.0


def for_hosts(app: ASGIApp, hosts: Collection[str]) -> ASGIApp:
    """An application that answers requests to some names alone.

    A web page can make a browser on this machine call a server on loopback under the page's own name (DNS rebinding).

    Args:
      app: the application.
      hosts: the names, in lower case, without ports. Empty allows all.
    """

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope.get("headers", ())).get(b"host", b"").decode("latin-1")
        name = re.sub(r":\d+$", "", given).strip("[]").lower()
        if scope["type"] != "http" or not hosts or not name or name in hosts:
            await app(scope, receive, send)
            return
        reason = f"this server does not answer for the host '{name[:100]}': start it with --allowed_hosts"
        await JSONResponse({"error": reason}, 421)(scope, receive, send)

    return checked


class Connection(H11Protocol):
    """A connection whose requests must begin, with their whole head, within `seconds`. Errors are JSON."""

    seconds = Limits().timeout
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()

    def _wait(self) -> None:
        """Starts the time in which a head must be there, or ends it."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._late is None:
            self._late = self.loop.call_later(self.seconds, self.transport.close)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def send_400_response(self, msg: str) -> None:
        reason = msg.rstrip(".").lower()
        body = JSONResponse({"error": f"the request is not HTTP: {reason}"}, 400, {"connection": "close"})
        status, headers = b"HTTP/1.1 400 Bad Request\r\n", b"".join(b"%s: %s\r\n" % pair for pair in body.raw_headers)
        self.transport.write(status + headers + b"\r\n" + bytes(body.body))
        self.transport.close()


class Server(uvicorn.Server):
    """A server whose process ends within a bounded time after a signal, even if a thread does not."""

    def handle_exit(self, sig: int, frame: Any) -> None:
        leave = threading.Timer((self.config.timeout_graceful_shutdown or 0) + GRACE, os._exit, (75,))
        leave.daemon = True
        leave.start()
        super().handle_exit(sig, frame)


def server(app: ASGIApp, host: str, allowed: Collection[str], limits: Limits) -> Server:
    """The server of an application.

    Args:
      app: the application.
      host: the address that it listens on. On loopback it answers for the names of loopback and for `allowed`.
      allowed: further names; without loopback and without names, it answers for all.
      limits: the limits of the server.
    """
    hosts = LOOPBACK.union(allowed) if host in LOOPBACK else frozenset(allowed)
    protocol = type("LimitedConnection", (Connection,), {"seconds": limits.timeout})
    shutdown = max(1, int(2 * limits.timeout))
    return Server(
        uvicorn.Config(
            for_hosts(app, hosts),
            http=protocol,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=shutdown,
        )
    )
