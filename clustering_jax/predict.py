"""``python -m clustering_jax.predict --workdir=DIR --input=PATH --output=out.csv``.

Assigns new examples by the newest checkpoint of a run: images (a folder, `.npy` or `.npz`) as a stream in constant
memory, views of objects from such files as the run was trained on, `--views=0,2` where the input has only some of them;
for DXMC embeddings, or images to be embedded by the run's own model.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clustering_jax import cli, seeds
from clustering_jax.checkpoint import Store, read_json
from clustering_jax.data.embeddings import MANIFEST, embeddings, unit_rows
from clustering_jax.data.images import iter_images
from clustering_jax.data.multiview import new_rows
from clustering_jax.data.pca import projected
from clustering_jax.embed import iter_embedded
from clustering_jax.errors import UserError
from clustering_jax.evaluate import make_infer
from clustering_jax.log import write_atomic
from clustering_jax.methods import from_config
from clustering_jax.parallel import data_mesh, device_per_core, replicated
from clustering_jax.results import assignment_lines
from clustering_jax.train import init_state, member


@dataclass(frozen=True)
class Predictor:
    """A trained model ready for new examples.

    `embed` and `predict_proba` take features as the run was trained on: ``{"image": uint8 [n, h, w, c]}``, or scaled
    views ``{"view0": float32 [n, d], ...}``, all or some. shapes: of one example of each. scalings: of the views.
    names: words for each cluster, of methods that have them. It pickles, with its weights as NumPy arrays.
    """

    variables: Any
    meta: Mapping[str, Any]
    names: list[list[str]]
    _predict: Callable
    _embed: Callable

    @property
    def config(self) -> dict[str, Any]:
        return self.meta["config"]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {k: tuple(shape) for k, (shape, _) in self.meta["features"].items()}

    @property
    def scalings(self) -> dict[str, Any] | None:
        return self.meta["scalings"]

    @classmethod
    def of(cls, variables: Any, meta: Mapping[str, Any], names: list[list[str]], batch_size: int = 0) -> Predictor:
        """Of one seed's variables and of what `fit` keeps as `meta`; `batch_size` 0 is the run's own."""
        method = from_config(meta["config"], meta["steps_per_epoch"])
        size = _padded(batch_size or meta["config"]["batch_size"])
        return cls(variables, meta, names, make_infer(method.predict, size), make_infer(method.embed, size))

    def __reduce__(self) -> tuple:
        # Compiled functions don't pickle.
        return type(self).of, (jax.device_get(self.variables), self.meta, self.names)

    def save(self, directory: Path, step: int) -> None:
        """Writes the checkpoint that `restore` reads from its parent, with optimisers as at the start of a run."""
        method = from_config(self.config, self.meta["steps_per_epoch"])
        store = Store(directory)
        try:
            store.save(step, init_state(method, jax.tree.map(jnp.asarray, self.variables)), {}, dict(self.meta))
        finally:
            store.close()

    @classmethod
    def restore(cls, workdir: str | Path, *, batch_size: int = 0) -> Predictor:
        """The newest intact checkpoint of `workdir`; `batch_size` 0 is the run's own.

        Of several seeds, the one that the run kept.

        Raises:
          UserError: there is no checkpoint, or none is intact; several seeds that have not finished.
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
        whole = replicated(data_mesh(_padded(batch_size or config["batch_size"])))
        chosen, kept = seeds.seeds_of(config), _kept(config, Path(workdir))
        abstract = jax.eval_shape(
            lambda batch: init_state(method, seeds.initial(method, chosen, batch), len(chosen)), example
        )
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), abstract)
        found = store.restore(abstract)
        if found is None:
            raise UserError(f"{workdir} holds no finished checkpoint yet")
        variables = found[1].variables if len(chosen) == 1 else member(found[1].variables, chosen.index(kept))
        names = [cluster["names"] for cluster in read_json(Path(workdir) / "clusters.json") or []]
        return cls.of(variables, {**meta, "config": {**config, "seed": kept, "num_seeds": 1}}, names, batch_size)

    def predict_proba(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """Soft assignments [n, k]."""
        return self._predict(self.variables, features)

    def predict(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """Clusters [n]."""
        return self.predict_proba(features).argmax(1)

    def embed(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """Encoder features [n, d]."""
        return self._embed(self.variables, features)


def _padded(size: int) -> int:
    """A batch size that all devices share: the last batch is padded in any case."""
    return size + -size % jax.device_count()


def _kept(config: Mapping[str, Any], workdir: Path) -> int:
    """The seed to predict with."""
    result = read_json(workdir / "result.json")
    if config["num_seeds"] > 1 and not result:
        raise UserError(
            f"{workdir} has not finished its {config['num_seeds']} seeds, so none is chosen: finish the run"
        )
    return result["seed"] if result else config["seed"]


def lines(predictor: Predictor, path: str | Path, chunk: int, views: Sequence[int] = ()) -> Iterator[str]:
    """The CSV of `path`'s examples, `chunk` rows at a time; views: which of the run's views it has, () is all."""
    yield from assignment_lines([], np.zeros((0, 1)), predictor.names, header=True)
    for ids, features in examples(predictor, path, chunk, views):
        yield from assignment_lines(ids, predictor.predict_proba(features), predictor.names, header=False)


def examples(
    predictor: Predictor, path: str | Path, chunk: int, views: Sequence[int] = ()
) -> Iterator[tuple[list[str], dict[str, np.ndarray]]]:
    """``(ids, features)`` of up to `chunk` rows of images, of all rows of others; arguments as for `lines`."""
    if len(predictor.shapes.get("image", ())) == 1:
        yield from _embeddings(predictor, Path(path))
        return
    if "image" in predictor.shapes:
        for ids, images in iter_images(path, predictor.shapes["image"], chunk):
            yield ids, {"image": images}
        return
    if predictor.scalings is None:
        raise UserError("this run was trained on embedded or generated views: there are no files like them to assign")
    found = projected(new_rows(path, predictor.config["data"], predictor.scalings, views))
    for note in found.notes:
        warnings.warn(note, stacklevel=2)
    yield found.ids, found.features


def _embeddings(predictor: Predictor, path: Path) -> Iterator[tuple]:
    """``(ids, features)`` of a file or directory of embeddings, or of images, embedded by the run's own model."""
    known, made = predictor.config["data"], predictor.config["embed"]
    if not path.expanduser().is_dir() or (path.expanduser() / MANIFEST).is_file():
        keys = {name: known[name] for name in ("image_key",) if name in known}
        found = embeddings(path, split="all" if path.is_file() else known["split"], **keys)
        parts = iter([(found.ids, found.features["image"])])
    elif made["clip"]:
        parts = iter_embedded(path, **{name: made[name] for name in ("clip", "resize", "batch_size")})
    else:
        raise UserError(f"{path}: the run was trained on embeddings without a model: give embeddings of the same kind")
    for ids, rows in parts:
        rows = unit_rows(rows, str(path))
        if rows.shape[1:] != predictor.shapes["image"]:
            wanted = predictor.shapes["image"][0]
            raise UserError(f"{path} has embeddings of {rows.shape[1]} columns, the run was trained on {wanted}")
        yield ids, {"image": rows}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m clustering_jax.predict", description=__doc__.partition("\n")[2])
    parser.add_argument("--workdir", required=True, help="the directory of the run")
    parser.add_argument("--input", required=True, help="image folder, .npy or .npz; for views, files as in training")
    parser.add_argument("--views", default="", help="numbers of the views that the input has, as 0,2 (default: all)")
    parser.add_argument("--output", required=True, help="CSV to write: id, cluster, probability")
    parser.add_argument("--batch_size", type=int, default=0, help="rows at a time (default: the run's)")
    return parser.parse_args()


def _numbers(views: str) -> list[int]:
    parts = [part for part in views.split(",") if part]
    if not all(part.strip().isdecimal() for part in parts):
        raise UserError(f"--views={views}: give numbers, as --views=0,2")
    return [int(part) for part in parts]


def main() -> None:
    """Reads the arguments and writes the CSV."""
    arguments = _arguments()
    output = Path(arguments.output)
    if not output.parent.is_dir():
        raise UserError(f"--output={output}: there is no directory {output.parent}")
    predictor = Predictor.restore(arguments.workdir, batch_size=arguments.batch_size)
    chunk = arguments.batch_size or predictor.config["batch_size"]
    write_atomic(output, lines(predictor, arguments.input, chunk, _numbers(arguments.views)))
    print(f"{output} written")


if __name__ == "__main__":
    cli.use_huge_pages()
    device_per_core()
    cli.run(main)
