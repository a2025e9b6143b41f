"""A trained model, read from the workdir of its run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clustering_jax.errors import UserError
from clustering_jax.files import read_json
from clustering_jax.methods import from_config
from clustering_jax.parallel import data_mesh, replicated
from clustering_jax.training import seeds
from clustering_jax.training.checkpoint import Store
from clustering_jax.training.evaluate import make_infer
from clustering_jax.training.update import init_state


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
            lambda batch: init_state(method, seeds.init_variables(method, chosen, batch), len(chosen)), example
        )
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), abstract)
        found = store.restore(abstract)
        if found is None:
            raise UserError(f"{workdir} holds no finished checkpoint yet")
        variables = found[1].variables if len(chosen) == 1 else seeds.take_seed(found[1].variables, chosen.index(kept))
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
