"""Connections of the server: slow heads, other hosts, bytes that are not HTTP, and a process that must end."""

import asyncio
import json
import os
import socket
import threading
import time
from contextlib import contextmanager

import pytest
from starlette.responses import JSONResponse

from clustering_jax.serving import connections
from clustering_jax.serving.app import _error_response
from clustering_jax.serving.requests import Limits


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await JSONResponse({"ok": True})(scope, receive, send)


@contextmanager
def running(allowed=(), timeout=0.5):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = connections.server(app, "127.0.0.1", allowed, Limits(timeout=timeout))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
        thread.start()
        try:
            yield listening.getsockname()
        finally:
            server.should_exit = True
            thread.join(20)


def answer(address, content):
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(content)
        found = b""
        while part := client.recv(4096):
            found += part
    head, _, body = found.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def get(host):
    return f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


def test_other_hosts_are_refused_on_loopback():
    with running(allowed=["example.org"]) as address:
        for host in ("127.0.0.1", "localhost:8000", "LOCALHOST", "[::1]:8000", "example.org", "example.org:80"):
            assert answer(address, get(host)) == (200, {"ok": True}), host
        for host in ("evil.example", "127.0.0.1.evil.example:8000", "localhost.evil", "evil.example:127"):
            status, body = answer(address, get(host))
            assert status == 421 and "does not answer for the host" in body["error"], host


def test_what_is_not_http_is_answered_in_json():
    with running() as address:
        status, body = answer(address, b"\x16\x03\x01\x02\x00\x01\r\n\r\n")
        assert status == 400 and body["error"].startswith("the request is not HTTP")


def test_a_head_that_comes_slowly_is_given_up():
    with running() as address, socket.create_connection(address, timeout=10) as slow:
        start = time.monotonic()
        with pytest.raises(OSError):
            for byte in get("localhost") * 9:
                slow.sendall(bytes([byte]))
                time.sleep(0.05)
        assert time.monotonic() - start < 5


def test_idle_connections_are_closed():
    with running() as address:
        idle = [socket.create_connection(address, timeout=10) for _ in range(50)]
        assert all(client.recv(1) == b"" for client in idle)
        assert answer(address, get("localhost"))[0] == 200
        for client in idle:
            client.close()


def test_a_connection_that_is_kept_must_go_on():
    with running() as address, socket.create_connection(address, timeout=10) as client:
        for _ in range(3):
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            found = b""
            while not found.endswith(b'{"ok":true}'):
                found += client.recv(4096)
        assert client.recv(1) == b""


def test_a_server_ends_a_bounded_time_after_a_signal(monkeypatch):
    """A thread that does not end kept the process for minutes."""
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    monkeypatch.setattr(connections, "GRACE", -0.9)
    server = connections.server(app, "127.0.0.1", (), Limits(timeout=0.1))
    server.handle_exit(15, None)
    assert server.should_exit and ended.wait(5)


def test_a_refusal_quotes_any_text():
    """Half a character ended in a 500 in plain text."""
    response = _error_response(400, "the request has '\ud800', which the model does not take")
    assert "does not take" in json.loads(response.body)["error"]
