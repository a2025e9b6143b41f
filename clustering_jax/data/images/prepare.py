"""``python -m clustering_jax.data.images.prepare NAME [--tfds_dir=DIR]``: downloads and prepares a TFDS set.

Run it once for each set. Nothing else needs TensorFlow: ``pip install "clustering_jax[prepare]"``.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from clustering_jax.data.images.tfds import DEFAULT_DIR


def main(arguments: list[str] | None = None) -> None:
    """Downloads a set and writes it in array_record format, which can be read without TensorFlow."""
    parser = argparse.ArgumentParser(
        "python -m clustering_jax.data.images.prepare", description=(__doc__ or "").split("\n")[2]
    )
    parser.add_argument("name", help="the name in TFDS: cifar10, cifar100, stl10, ...")
    parser.add_argument("--tfds_dir", default=DEFAULT_DIR, help="directory of the prepared sets (default: %(default)s)")
    flags = parser.parse_args(arguments)
    if None in map(importlib.util.find_spec, ("tensorflow", "tensorflow_datasets")):
        sys.exit('error: preparing a set needs TensorFlow once: pip install "clustering_jax[prepare]"')
    import tensorflow_datasets

    directory = Path(flags.tfds_dir).expanduser()
    builder = tensorflow_datasets.builder(flags.name, data_dir=directory, file_format="array_record")
    builder.download_and_prepare()
    print(f"{flags.name} is prepared in {builder.data_dir}")


if __name__ == "__main__":
    main()
