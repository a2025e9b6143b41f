"""``python -m clustering_jax.report --workdir=DIR [--map=tsne]``.

Writes DIR/report.html for a finished or an unfinished run. The data is loaded according to the config of the run. If
the data is no longer there, the report leaves out the images and the map, and says so.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clustering_jax import cli, report
from clustering_jax.parallel import device_per_core


def main(argv: list[str]) -> None:
    """Reads the arguments and writes the report."""
    parser = argparse.ArgumentParser(argv[0], description=__doc__.partition("\n")[2])
    parser.add_argument("--workdir", required=True, type=Path, help="the directory of the run")
    parser.add_argument("--map", default="pca", help="pca (default), tsne or umap; umap needs the package umap-learn")
    arguments = parser.parse_args(argv[1:])
    print(f"{report.write(arguments.workdir.expanduser(), arguments.map)} written")


def command(argv: list[str]) -> None:
    """Runs `main` as a program, which ends here; `argv` begins with the name by which it was called."""
    cli.use_huge_pages()
    device_per_core()
    cli.run(lambda: main(argv))


if __name__ == "__main__":
    command(["python -m clustering_jax.report", *sys.argv[1:]])
