"""The commands of the package: ``clustering-jax COMMAND ...``, or ``python -m clustering_jax COMMAND ...``."""

from __future__ import annotations

import platform
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from clustering_jax import __version__
from clustering_jax.errors import nearest

# Each command: its module and what it does.
COMMANDS = {
    "train": ("main", "train what a config describes, or resume it"),
    "predict": ("predict", "assign new examples to the clusters of a run"),
    "embed": ("embed", "embed images and nouns by a CLIP model, once"),
    "choose-k": ("choose_k", "estimate the number of clusters without labels"),
    "compare": ("compare", "rank encoders and numbers of clusters without labels"),
    "report": ("report.__main__", "write report.html of a run"),
    "edit": ("edit", "correct the clusters of a finished run by hand"),
    "update": ("update", "add new rows to a finished run"),
    "export": ("export", "write a run's model as a directory that can be served"),
    "serve": ("serve", "answer requests over HTTP with an exported model"),
}


def main(argv: list[str] | None = None) -> None:
    """Runs the command that the first argument names.

    Args:
      argv: the program and its arguments; None takes `sys.argv`.
    """
    called, *arguments = sys.argv if argv is None else argv
    program = "python -m clustering_jax" if Path(called).name == "__main__.py" else Path(called).name
    name = arguments[0] if arguments else "--help"
    if name in ("--help", "-h"):
        print(overview(program))
    elif name == "--version":
        print(versions())
    elif name in COMMANDS:
        module = import_module(f"clustering_jax.{COMMANDS[name][0]}")
        module.command([f"{program} {name}", *arguments[1:]])
    else:
        print(f"error: there is no command '{name}'{nearest(name, COMMANDS)}", file=sys.stderr)
        sys.exit(2)


def overview(program: str) -> str:
    """The commands, one line each."""
    lines = [f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items()]
    usage = f"usage: {program} COMMAND ...", f"       {program} COMMAND --help | --version"
    return "\n".join([*usage, "", *lines])


def versions() -> str:
    """The versions that a report of a problem needs."""
    parts = (f"{name} {version(name)}" for name in ("jax", "jaxlib", "flax"))
    return f"clustering_jax {__version__} ({', '.join(parts)}, Python {platform.python_version()})"


if __name__ == "__main__":
    main()
