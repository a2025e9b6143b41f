"""``python -m clustering_jax.export --workdir=DIR --output=model/``.

Writes the newest checkpoint of a run as a directory that needs neither the run nor this package's methods to predict:
a `jax.export` artefact for CPU, CUDA and TPU and any number of rows, the parameters, the preprocessing, the names of
clusters and the config. JAX promises to read an artefact for six months; ``--model=model/ --output=newer/`` makes it
anew of the parameters and the config that lie beside it.
"""

from __future__ import annotations

import argparse
import sys

from clustering_jax import cli
from clustering_jax.serving.artefact import contents
from clustering_jax.serving.export import of_run, write


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(argv[0], description=__doc__.partition("\n")[2])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", help="the directory of a run")
    source.add_argument("--model", help="an exported model, whose artefact is made anew")
    parser.add_argument("--output", required=True, help="directory to write")
    return parser.parse_args(argv[1:])


def main(argv: list[str]) -> None:
    """Reads the arguments and writes the model."""
    arguments = _arguments(argv)
    write(of_run(arguments.workdir) if arguments.workdir else contents(arguments.model)[0], arguments.output)
    print(f"{arguments.output} written")


def command(argv: list[str]) -> None:
    """Runs `main` as a program, which ends here; `argv` begins with the name by which it was called."""
    cli.run(lambda: main(argv))


if __name__ == "__main__":
    command(["python -m clustering_jax.export", *sys.argv[1:]])
