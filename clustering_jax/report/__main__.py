"""``python -m clustering_jax.report --workdir=DIR [--map=tsne] [--export=folders | --export=parquet]``.

Writes DIR/report.html for a finished or an unfinished run. The data is loaded according to the config of the run. If
the data is no longer there, the report leaves out the images and the map, and says so.

With ``--export``, the clusters are written for other programs instead: the files in one folder per cluster, or a table
for fiftyone, embedding-atlas and others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clustering_jax import report
from clustering_jax.errors import UserError
from clustering_jax.report.export import export
from clustering_jax.start import start


def main(argv: list[str]) -> None:
    """Reads the arguments and writes the report."""
    parser = argparse.ArgumentParser(argv[0], description=__doc__.partition("\n")[2])
    parser.add_argument("--workdir", required=True, type=Path, help="the directory of the run")
    parser.add_argument("--map", default="pca", help="pca (default), tsne or umap; umap needs the package umap-learn")
    parser.add_argument("--export", metavar="KIND", help="folders or parquet, in place of the report")
    parser.add_argument("--output", type=Path, help="where to export to (default: clusters in the workdir)")
    parser.add_argument("--copy", action="store_true", help="--export=folders copies the files, and does not link them")
    arguments = parser.parse_args(argv[1:])
    workdir = arguments.workdir.expanduser()
    if arguments.export:
        kind, output = arguments.export, arguments.output
        print(export(workdir, kind, output, copy=arguments.copy, map_kind=arguments.map))
    elif arguments.output or arguments.copy:
        raise UserError(f"--{'output' if arguments.output else 'copy'} is for --export=folders or --export=parquet")
    else:
        print(f"{report.write(workdir, arguments.map)} written")


def command(argv: list[str]) -> None:
    """Runs `main` as a program, which ends here; `argv` begins with the name by which it was called."""
    start(main, argv)


if __name__ == "__main__":
    command(["python -m clustering_jax.report", *sys.argv[1:]])
