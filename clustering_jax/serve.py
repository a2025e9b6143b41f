"""``python -m clustering_jax.serve model/`` answers over HTTP what `clustering_jax.predict` would say of new rows.

``POST /predict`` takes JSON, `.npy`, `.npz` or image files, ``GET /health`` tells what the model is: docs/serving.md.
It listens on 127.0.0.1 and asks nobody who they are: put a proxy with authentication before it, or leave it there.
"""

from __future__ import annotations

import argparse
import socket
import sys
from contextlib import suppress

from clustering_jax import cli
from clustering_jax.errors import UserError
from clustering_jax.serving.artefact import Model
from clustering_jax.serving.requests import Limits
from clustering_jax.training.signals import Stopped


def _listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections, so that none is refused between the ready line and the first answer."""
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=1024
        )
    except (OSError, OverflowError) as error:
        raise UserError(f"--host={host} --port={port} can't be listened on ({error}): choose others") from error


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(argv[0], description=__doc__.partition("\n")[2])
    parser.add_argument("model", help="directory that clustering_jax.serving.export wrote")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 is any that is free (default: %(default)s)")
    told = ("bytes of a body", "rows of a request", "requests under way", "rows computed together")
    told += ("milliseconds that a batch waits for more", "seconds for a request to come, and to be answered")
    for (name, default), text in zip(Limits()._asdict().items(), told, strict=True):
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{text} (default: %(default)s)")
    return parser.parse_args(argv[1:])


def _limits(arguments: argparse.Namespace) -> Limits:
    limits = Limits(**{name: getattr(arguments, name) for name in Limits._fields})
    for name, value in limits._asdict().items():
        if not (value >= 0 if name == "max_wait_ms" else value > 0):
            raise UserError(f"--{name}={value}: choose a number above 0")
    return limits


def main(argv: list[str]) -> None:
    """Reads the arguments and answers until a signal comes; what is under way then is answered still."""
    arguments = _arguments(argv)
    limits = _limits(arguments)
    try:
        import uvicorn

        from clustering_jax.serving.app import application
    except ImportError as error:
        raise UserError(f'serving needs a library ({error}): pip install "clustering_jax[serve]"') from error
    model = Model.load(arguments.model, max_batch=limits.max_batch)
    with _listening(arguments.host, arguments.port) as server:
        model.compile()
        told = f"{model.manifest['method']}, {model.manifest['num_clusters']} clusters"
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        print(f"serving {told} on http://{host}:{server.getsockname()[1]}", flush=True)
        config = uvicorn.Config(
            application(model, limits),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=max(1, int(2 * limits.timeout)),
        )
        with suppress(Stopped):  # uvicorn raises the signal again when all is answered
            uvicorn.Server(config).run(sockets=[server])


def command(argv: list[str]) -> None:
    """Runs `main` as a program, which ends here; `argv` begins with the name by which it was called."""
    cli.use_huge_pages()
    cli.run(lambda: main(argv))


if __name__ == "__main__":
    command(["python -m clustering_jax.serve", *sys.argv[1:]])
