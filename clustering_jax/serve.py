"""``python -m clustering_jax.serve model/`` predicts new rows over HTTP, with the results of `clustering_jax.predict`.

``POST /predict`` takes JSON, `.npy`, `.npz` or image files. ``GET /docs`` describes the requests, ``GET /health`` the
model. ``/ready`` and ``/metrics`` are for probes and Prometheus. See docs/serving.md.
The server listens on 127.0.0.1 and has no authentication: to reach it from outside, put a proxy with authentication in
front of it.
"""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

from clustering_jax import cli
from clustering_jax.errors import UserError
from clustering_jax.serving.artefact import Model
from clustering_jax.serving.requests import Limits
from clustering_jax.training.signals import Stopped


def _listening(host: str, port: int) -> socket.socket:
    """Opens the socket before the ready line is printed, so that no connection is refused after that line."""
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=1024
        )
    except (OSError, OverflowError) as error:
        raise UserError(f"can't listen on --host={host} --port={port} ({error}): choose another") from error


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(argv[0], description=__doc__.partition("\n")[2])
    parser.add_argument("model", help="directory that clustering_jax.export wrote")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 chooses a free port (default: %(default)s)")
    parser.add_argument("--name", default="", help="name of the model in answers (default: the directory's name)")
    parser.add_argument("--no_access_log", action="store_true", help="write no line for each request to stderr")
    parser.add_argument(
        "--allowed_hosts",
        default="",
        metavar="NAMES",
        help="names under which it is called, with commas, as example.org; on loopback, localhost is always allowed",
    )
    texts = (
        "largest body of a request in bytes",
        "largest number of rows in a request",
        "largest number of pending requests",
        "largest number of rows computed together",
        "milliseconds that a batch waits for more rows",
        "seconds in which a request must arrive, and in which it must be answered",
    )
    for (name, default), text in zip(Limits()._asdict().items(), texts, strict=True):
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{text} (default: %(default)s)")
    return parser.parse_args(argv[1:])


def _limits(arguments: argparse.Namespace) -> Limits:
    limits = Limits(**{name: getattr(arguments, name) for name in Limits._fields})
    for name, value in limits._asdict().items():
        if not (value >= 0 if name == "max_wait_ms" else value > 0):
            raise UserError(f"--{name}={value}: choose a number above 0")
    return limits


@contextmanager
def _access_log() -> Iterator[None]:
    """Writes a line to stderr for each request that is answered in the block."""
    from clustering_jax.serving.observed import ACCESS_LOG

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    before = ACCESS_LOG.level
    ACCESS_LOG.addHandler(handler)
    ACCESS_LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        ACCESS_LOG.removeHandler(handler)
        ACCESS_LOG.setLevel(before)


def main(argv: list[str]) -> None:
    """Reads the arguments and serves until a signal arrives; pending requests are still answered then."""
    arguments = _arguments(argv)
    limits = _limits(arguments)
    try:
        from clustering_jax.serving import connections
        from clustering_jax.serving.app import application
    except ImportError as error:
        raise UserError(f'serving needs a library ({error}): pip install "clustering_jax[serve]"') from error
    model = Model.load(arguments.model, max_batch=limits.max_batch)
    log = nullcontext() if arguments.no_access_log else _access_log()
    with log, _listening(arguments.host, arguments.port) as server:
        model.compile()
        summary = f"{model.manifest['method']}, {model.manifest['num_clusters']} clusters"
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        print(f"serving {summary} on http://{host}:{server.getsockname()[1]}", flush=True)
        allowed = [name.strip().lower() for name in arguments.allowed_hosts.split(",") if name.strip()]
        with suppress(Stopped):  # uvicorn raises the signal again after the last response.
            connections.server(application(model, limits, arguments.name), arguments.host, allowed, limits).run(
                sockets=[server]
            )


def command(argv: list[str]) -> None:
    """Runs `main` as a program, which ends here; `argv` begins with the name by which it was called."""
    cli.use_huge_pages()
    cli.run(lambda: main(argv))


if __name__ == "__main__":
    command(["python -m clustering_jax.serve", *sys.argv[1:]])
