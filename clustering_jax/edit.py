"""``python -m clustering_jax.edit --workdir=DIR --output=NEW [--merge 3,7] [--split 5:3] [--rename "2=bikes"] ...``.

Corrects the clusters of a finished run by hand and writes a new workdir, which `predict` and `report` read like any
other. Nothing in the old workdir is changed, and clusters that are not named keep their numbers. All numbers are those
before the corrections. Several corrections may be given at once, each flag several times.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from clustering_jax import report
from clustering_jax.editing import Request, Training, edit, match
from clustering_jax.editing.request import (
    checked_pairs,
    combined,
    from_file,
    from_flags,
    from_moves,
    read_columns,
    read_labels,
)
from clustering_jax.errors import UserError
from clustering_jax.inference.results import table
from clustering_jax.start import start


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(argv[0], description=__doc__.partition("\n")[2])
    parser.add_argument("--workdir", required=True, type=Path, help="the directory of the finished run")
    parser.add_argument("--output", required=True, type=Path, help="the new directory")
    several: Any = {"action": "append", "default": []}
    parser.add_argument("--merge", metavar="3,7", help="makes these clusters one, with the first number", **several)
    parser.add_argument("--split", metavar="5:3", help="splits cluster 5 into three parts", **several)
    parser.add_argument("--rename", metavar="2=NAME", help="gives cluster 2 a name", **several)
    parser.add_argument("--move", metavar="CSV", type=Path, help="rows to move: columns id and cluster", **several)
    parser.add_argument("--lock", metavar="4,6", default="", help="clusters that later corrections must not change")
    parser.add_argument("--unlock", metavar="4,6", default="", help="clusters that may be changed again")
    parser.add_argument("--retrain", action="store_true", help="trains on the corrected clusters for a short phase")
    parser.add_argument("--labels", metavar="CSV", type=Path, help="a few known classes, for --retrain: id and label")
    parser.add_argument("--pairs", metavar="CSV", type=Path, help="pairs of rows, for --retrain: a, b and link, 1 or 0")
    parser.add_argument("--steps", type=int, default=Training().steps, help="steps of --retrain (default: 200)")
    parser.add_argument("--encoder", action="store_true", help="--retrain trains the encoder too, not the heads alone")
    parser.add_argument("--match", metavar="RUN", type=Path, help="gives the clusters the numbers of an older run")
    parser.add_argument("--json", metavar="FILE", type=Path, help="corrections as JSON, see docs/edit.md", **several)
    return parser.parse_args(argv[1:])


def _request(arguments: argparse.Namespace) -> Request:
    flags = from_flags(arguments.merge, arguments.split, arguments.rename, arguments.lock, arguments.unlock)
    request = combined([*map(from_file, arguments.json), *map(from_moves, arguments.move), flags])
    if not any(request) and not arguments.retrain:
        raise UserError("there is nothing to correct: give --merge, --split, --rename, --move, --lock or --json")
    return request


def _training(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `edit` that concern training; none without ``--retrain``."""
    wanted = [f"--{name}" for name in ("labels", "pairs", "encoder") if getattr(arguments, name)]
    if not arguments.retrain:
        if wanted:
            raise UserError(f"{wanted[0]} is for training: add --retrain")
        return {}
    if arguments.steps < 1:
        raise UserError(f"--steps={arguments.steps}: choose 1 or more")
    labels = read_labels(arguments.labels) if arguments.labels else {}
    pairs = read_columns(arguments.pairs, ("a", "b", "link")) if arguments.pairs else []
    training = Training(arguments.steps, arguments.encoder)
    return {"training": training, "labels": labels, "pairs": checked_pairs(pairs, str(arguments.pairs))}


def _matched(arguments: argparse.Namespace) -> dict[str, Any]:
    flags = ("merge", "split", "rename", "move", "lock", "unlock", "json", "retrain", "labels", "pairs")
    others = [f"--{name}" for name in flags if getattr(arguments, name)]
    if others:
        raise UserError(f"--match changes the numbers that {others[0]} names: do it in two steps")
    return match(arguments.workdir, arguments.output, arguments.match)


def main(argv: list[str]) -> None:
    """Reads the arguments and writes the new workdir and its report."""
    arguments = _arguments(argv)
    if arguments.match:
        result = _matched(arguments)
    else:
        training = _training(arguments)
        result = edit(arguments.workdir, arguments.output, _request(arguments), **training)
    print(table(result))
    print(f"report: {report.write(arguments.output)}")


def command(argv: list[str]) -> None:
    """Runs `main` as a program, which ends here; `argv` begins with the name by which it was called."""
    start(main, argv)


if __name__ == "__main__":
    command(["python -m clustering_jax.edit", *sys.argv[1:]])
