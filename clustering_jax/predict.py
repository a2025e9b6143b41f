"""``python -m clustering_jax.predict --workdir=DIR --input=PATH --output=out.csv``.

Assigns new images (a folder, `.npy` or `.npz`) by the newest checkpoint of a run: a stream in constant memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from clustering_jax import cli
from clustering_jax.checkpoint import Store
from clustering_jax.data.images import iter_images
from clustering_jax.errors import UserError
from clustering_jax.evaluate import make_infer
from clustering_jax.log import write_atomic
from clustering_jax.methods import from_config
from clustering_jax.parallel import data_mesh, device_per_core, replicated
from clustering_jax.results import assignment_lines
from clustering_jax.train import init_state


@dataclass(frozen=True)
class Predictor:
    """A trained model ready for new examples: `embed` and `predict_proba` take ``{"image": uint8 [n, h, w, c]}``."""

    variables: Any
    config: dict[str, Any]
    image_shape: tuple[int, ...]
    _predict: Callable
    _embed: Callable

    @classmethod
    def restore(cls, workdir: str | Path, *, batch_size: int = 0) -> Predictor:
        """The newest intact checkpoint of `workdir`; `batch_size` 0 is the run's own.

        Raises:
          UserError: there is no checkpoint, or none is intact.
        """
        directory = Path(workdir) / "checkpoints"
        if not directory.is_dir():
            raise UserError(f"{workdir} holds no checkpoints: is it the --workdir of a run?")
        store = Store(directory, read_only=True)
        try:
            return cls._read(store, workdir, batch_size)
        finally:
            store.close()

    @classmethod
    def _read(cls, store: Store, workdir: str | Path, batch_size: int) -> Predictor:
        meta = store.newest_meta()
        if meta is None:
            raise UserError(f"{workdir} holds no finished checkpoint yet")
        config = meta["config"]
        method = from_config(config, meta["steps_per_epoch"])
        example = {k: jax.ShapeDtypeStruct((2, *shape), dtype) for k, (shape, dtype) in meta["features"].items()}
        size = batch_size or config["batch_size"]
        size += -size % jax.device_count()  # the last batch is padded in any case
        whole = replicated(data_mesh(size))
        abstract = jax.eval_shape(lambda batch: init_state(method, method.init(jax.random.key(0), batch)), example)
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), abstract)
        found = store.restore(abstract)
        if found is None:
            raise UserError(f"{workdir} holds no finished checkpoint yet")
        predict, embed = make_infer(method.predict, size), make_infer(method.embed, size)
        return cls(found[1].variables, config, tuple(meta["features"]["image"][0]), predict, embed)

    def predict_proba(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """Soft assignments [n, k]."""
        return self._predict(self.variables, features)

    def predict(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """Clusters [n]."""
        return self.predict_proba(features).argmax(1)

    def embed(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """Encoder features [n, d]."""
        return self._embed(self.variables, features)


def lines(predictor: Predictor, path: str | Path, chunk: int) -> Iterator[str]:
    """The CSV of `path`'s images, `chunk` rows at a time."""
    yield from assignment_lines([], np.zeros((0, 1)), header=True)
    for ids, images in iter_images(path, predictor.image_shape, chunk):
        yield from assignment_lines(ids, predictor.predict_proba({"image": images}), header=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m clustering_jax.predict", description=__doc__.partition("\n")[2])
    parser.add_argument("--workdir", required=True, help="the directory of the run")
    parser.add_argument("--input", required=True, help="image folder, .npy or .npz")
    parser.add_argument("--output", required=True, help="CSV to write: id, cluster, probability")
    parser.add_argument("--batch_size", type=int, default=0, help="rows at a time (default: the run's)")
    return parser.parse_args()


def main() -> None:
    """Reads the arguments and writes the CSV."""
    arguments = _arguments()
    output = Path(arguments.output)
    if not output.parent.is_dir():
        raise UserError(f"--output={output}: there is no directory {output.parent}")
    predictor = Predictor.restore(arguments.workdir, batch_size=arguments.batch_size)
    chunk = arguments.batch_size or predictor.config["batch_size"]
    write_atomic(output, lines(predictor, arguments.input, chunk))
    print(f"{output} written")


if __name__ == "__main__":
    cli.use_huge_pages()
    device_per_core()
    cli.run(main)
