"""Sets of views that a command line names: --sets=msrc_v1:7,leaves100:100 with the numbers of their clusters."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path


def sets_of(arguments: argparse.Namespace) -> Iterator[tuple[str, Path, int]]:
    """The name, the file and the number of clusters of each set.

    Args:
      arguments: with `data`, the folder of the files NAME.npz, and `sets`, as in the command line above.
    """
    for name, _, k in (part.partition(":") for part in arguments.sets.split(",")):
        yield name, Path(arguments.data) / f"{name}.npz", int(k)
