"""``python -m clustering_jax.update --workdir=OLD --input=PATH --output=NEW [--new_clusters=all] [--steps=200]``.

Adds new rows to a finished run and writes a new workdir with old and new rows, which the other commands read like any
other. Says how many new rows fit no cluster, which of them form groups of their own, and how much the data drifts; then
goes on with the training on all rows. Clusters keep their numbers. Nothing in the old workdir is changed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clustering_jax import report
from clustering_jax.editing import Training, update
from clustering_jax.editing.new_data import ALL
from clustering_jax.editing.outcome import summary
from clustering_jax.errors import UserError
from clustering_jax.inference.results import table
from clustering_jax.start import start


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(argv[0], description=__doc__.partition("\n")[2])
    parser.add_argument("--workdir", required=True, type=Path, help="the directory of the finished run")
    parser.add_argument("--input", required=True, help="the new rows, as predict takes them; known files are left out")
    parser.add_argument("--output", required=True, type=Path, help="the new directory")
    parser.add_argument("--new_clusters", metavar="0,2", default="", help="groups that become clusters, or all")
    parser.add_argument("--steps", type=int, default=Training().steps, help="steps of training; 0 does not train")
    parser.add_argument("--encoder", action="store_true", help="trains the encoder too, not the heads alone")
    return parser.parse_args(argv[1:])


def _groups(text: str) -> list[int] | str:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if parts == [ALL]:
        return ALL
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--new_clusters={text}: give the numbers of groups, for example 0,2, or all")
    return [int(part) for part in parts]


def main(argv: list[str]) -> None:
    """Reads the arguments and writes the new workdir and its report."""
    arguments = _arguments(argv)
    if arguments.steps < 0:
        raise UserError(f"--steps={arguments.steps}: choose 1 or more, or 0 for no training")
    result = update(
        arguments.workdir,
        arguments.output,
        arguments.input,
        new_clusters=_groups(arguments.new_clusters),
        training=Training(arguments.steps, arguments.encoder) if arguments.steps else None,
    )
    print(table(result))
    print(summary(result))
    print(f"report: {report.write(arguments.output)}")


def command(argv: list[str]) -> None:
    """Runs `main` as a program, which ends here; `argv` begins with the name by which it was called."""
    start(main, argv)


if __name__ == "__main__":
    command(["python -m clustering_jax.update", *sys.argv[1:]])
