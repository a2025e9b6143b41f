"""``python -m clustering_jax.predict --workdir=DIR --input=PATH --output=out.csv``.

Assigns new examples to clusters with the newest checkpoint of a run. The input depends on the method:

* Images: a folder, `.npy` or `.npz`. They are streamed in constant memory.
* Views: files of the kind that the run was trained on. If the input has only some views, use `--views=0,2`.
* DXMC: embeddings, or images, which are then embedded by the model of the run.
"""

from __future__ import annotations

import argparse
import sys

from clustering_jax.data.views.files import names
from clustering_jax.errors import UserError
from clustering_jax.files import output_file, write_atomic
from clustering_jax.inference.new_rows import lines
from clustering_jax.inference.predictor import Predictor
from clustering_jax.start import start


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(argv[0], description=__doc__.partition("\n")[2])
    parser.add_argument("--workdir", required=True, help="the directory of the run")
    parser.add_argument("--input", required=True, help="image folder, .npy or .npz; for views, files as in training")
    parser.add_argument("--views", default="", help="numbers of the views in the input, for example 0,2 (default: all)")
    parser.add_argument("--output", required=True, help="CSV to write: id, cluster, probability")
    parser.add_argument("--batch_size", type=int, default=0, help="rows per batch (default: the batch size of the run)")
    return parser.parse_args(argv[1:])


def _numbers(views: str) -> list[int]:
    parts = [part for part in views.split(",") if part]
    if not all(part.strip().isdecimal() for part in parts):
        raise UserError(f"--views={views}: give numbers, for example --views=0,2")
    return [int(part) for part in parts]


def main(argv: list[str]) -> None:
    """Reads the arguments and writes the CSV."""
    arguments = _arguments(argv)
    if arguments.batch_size < 0:
        raise UserError(f"--batch_size={arguments.batch_size}: give 1 or more, or 0 for the batch size of the run")
    output = output_file(arguments.output, "--output", *names(arguments.input))
    predictor = Predictor.restore(arguments.workdir, batch_size=arguments.batch_size)
    chunk = arguments.batch_size or predictor.config["batch_size"]
    write_atomic(output, lines(predictor, arguments.input, chunk, _numbers(arguments.views)))
    print(f"{output} written")


def command(argv: list[str]) -> None:
    """Runs `main` as a program, which ends here; `argv` begins with the name by which it was called."""
    start(main, argv)


if __name__ == "__main__":
    command(["python -m clustering_jax.predict", *sys.argv[1:]])
