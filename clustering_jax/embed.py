"""``python -m clustering_jax.embed --config=configs/dxmc_folder.py --output=DIR [--config.embed.clip=MODEL ...]``.

Embeds the images and the nouns of a config (`config.embed`) with a CLIP model. The images are streamed. An interrupted
command resumes when it is started again. It writes to DIR:

* `SPLIT.npy` for each split: the output of the model, float32 [n, d], not normalised.
* `SPLIT.ids.json` and, if there are labels, `SPLIT.labels.npy`.
* `nouns.npy` and `nouns.txt`.
* `manifest.json`: the model, the preprocessing and a checksum of every array.

The data source "embeddings" reads such a directory.
"""

from __future__ import annotations

import sys

from clustering_jax.cli import read_flags
from clustering_jax.errors import UserError
from clustering_jax.inference.embedding import embed
from clustering_jax.start import start


def main(argv: list[str]) -> None:
    """Reads the flags and embeds."""
    config, output = read_flags(argv, "output", __doc__)
    if not config.get("embed"):
        raise UserError(
            f"a config of the method '{config['method']}' has nothing to embed: use one of configs/dxmc_*.py"
        )
    print(f"{embed(output, **config['embed'])} written")


def command(argv: list[str]) -> None:
    """Runs `main` as a program, which ends here; `argv` begins with the name by which it was called."""
    start(main, argv)


if __name__ == "__main__":
    command(["python -m clustering_jax.embed", *sys.argv[1:]])
