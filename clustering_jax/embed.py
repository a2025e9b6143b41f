"""``python -m clustering_jax.embed --config=configs/dxmc_folder.py --output=DIR [--config.embed.clip=MODEL ...]``.

Embeds the images and nouns that a config's `embed` names by CLIP, once, in a stream: the same command again goes on
where it was cut short. DIR then holds, for each split, `SPLIT.npy` (float32 [n, d], as the model gives it),
`SPLIT.ids.json` and, where there are labels, `SPLIT.labels.npy`; `nouns.npy` and `nouns.txt`; and `manifest.json`: the
model, the preprocessing, and a checksum of every array. The data source "embeddings" reads it.
"""

from __future__ import annotations

import sys

from clustering_jax import cli
from clustering_jax.cli import read_flags
from clustering_jax.errors import UserError
from clustering_jax.inference.embedding import embed
from clustering_jax.parallel import device_per_core


def main(argv: list[str]) -> None:
    """Reads the flags and embeds."""
    config, output = read_flags(argv, "output", __doc__)
    if not config.get("embed"):
        raise UserError(f"a config of the method '{config['method']}' embeds nothing: give one of configs/dxmc_*.py")
    print(f"{embed(output, **config['embed'])} written")


def command(argv: list[str]) -> None:
    """Runs `main` as a program, which ends here; `argv` begins with the name by which it was called."""
    cli.use_huge_pages()
    device_per_core()
    cli.run(lambda: main(argv))


if __name__ == "__main__":
    command(["python -m clustering_jax.embed", *sys.argv[1:]])
