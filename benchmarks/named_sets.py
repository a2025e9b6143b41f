"""Sets of views that a command line names: --sets=msrc_v1:7,leaves100:100 with the numbers of their clusters."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of `python -m benchmarks.NAME` with --data, --sets and --output, which is docs/NAME by default."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.{name}")
    parser.add_argument("--data", required=True)
    parser.add_argument("--sets", required=True)
    parser.add_argument("--output", default=f"docs/{name}")
    return parser


def sets_of(arguments: argparse.Namespace) -> Iterator[tuple[str, Path, int]]:
    """The name, the file and the number of clusters of each set."""
    for name, _, k in (part.partition(":") for part in arguments.sets.split(",")):
        yield name, Path(arguments.data) / f"{name}.npz", int(k)
