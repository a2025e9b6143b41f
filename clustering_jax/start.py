"""Starts a command that uses each CPU core as a device of its own. `cli` may not import JAX, so this is not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from clustering_jax import cli
from clustering_jax.parallel import device_per_core


def start(main: Callable[[list[str]], None], argv: list[str]) -> NoReturn:
    """Runs a command as a program, which ends here by the exit codes of `cli`.

    Args:
      main: the command.
      argv: its name as it was called, and its arguments.
    """
    cli.use_huge_pages()
    device_per_core()
    cli.run(lambda: main(argv))
