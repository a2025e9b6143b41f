"""``python -m clustering_jax.export --workdir=DIR --output=model/``.

Writes the newest checkpoint of a run as a directory that can predict without the run and without the code of the
methods. It holds a `jax.export` artefact for CPU, CUDA and TPU and any number of rows, the parameters, the
preprocessing, the names of the clusters and the config. For a run on photos, the encoder is part of the model, which
then takes photos. JAX guarantees to read an artefact for six months. After that,
``--model=model/ --output=newer/`` exports the model again from the parameters and the config in the directory.
"""

from __future__ import annotations

import argparse
import sys

from clustering_jax import cli
from clustering_jax.serving.artefact import read
from clustering_jax.serving.export import of_run, write


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(argv[0], description=__doc__.partition("\n")[2])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", help="the directory of a run")
    source.add_argument("--model", help="an exported model that is exported again")
    parser.add_argument(
        "--input",
        choices=("photos", "embeddings"),
        default="photos",
        help="what the model takes if the run embedded photos: photos, with the encoder inside, or embeddings",
    )
    parser.add_argument("--output", required=True, help="directory to write")
    return parser.parse_args(argv[1:])


def main(argv: list[str]) -> None:
    """Reads the arguments and writes the model."""
    arguments = _arguments(argv)
    contents = (
        of_run(arguments.workdir, photos=arguments.input == "photos") if arguments.workdir else read(arguments.model)[0]
    )
    write(contents, arguments.output)
    print(f"{arguments.output} written")


def command(argv: list[str]) -> None:
    """Runs `main` as a program, which ends here; `argv` begins with the name by which it was called."""
    cli.run(lambda: main(argv))


if __name__ == "__main__":
    command(["python -m clustering_jax.export", *sys.argv[1:]])
