"""Reads a trained model from the workdir of its run."""

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
from clustering_jax.inference.rule import PLAIN, Rule
from clustering_jax.methods import from_config
from clustering_jax.parallel import data_mesh, replicated
from clustering_jax.training import seeds
from clustering_jax.training.checkpoint import Store
from clustering_jax.training.evaluate import make_infer
from clustering_jax.training.update import init_state
from clustering_jax.training.workdir import finished


@dataclass(frozen=True)
class Predictor:
    """A trained model for new examples.

    The methods take features of the kind that the run was trained on: images ``{"image": uint8 [n, h, w, c]}``,
    embeddings ``{"image": float32 [n, d]}``, or all or some of the scaled views ``{"view0": float32 [n, d], ...}``. A
    predictor can be pickled; its weights then become NumPy arrays.

    Attributes:
      variables: Flax variables of one seed.
      meta: what every checkpoint of the run carries.
      names: words for each cluster, if the method has them.
      rule: what the run does with soft assignments.
    """

    variables: Any
    meta: Mapping[str, Any]
    names: list[list[str]]
    rule: Rule
    _predict: Callable
    _embed: Callable

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration of the run."""
        return self.meta["config"]

    @property
    def clusters(self) -> list[int]:
        """The number of the cluster of each column of the soft assignments."""
        return self.rule.ids.tolist() or list(range(self.config["num_clusters"]))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one example of each feature."""
        return {k: tuple(shape) for k, (shape, _) in self.meta["features"].items()}

    @property
    def scalings(self) -> dict[str, Any] | None:
        """Fitted scaling of each view; None for data that are not scaled views."""
        return self.meta["scalings"]

    @classmethod
    def of(
        cls,
        variables: Any,
        meta: Mapping[str, Any],
        names: list[list[str]],
        rule: Rule = PLAIN,
        batch_size: int = 0,
    ) -> Predictor:
        """Builds a predictor from trained variables.

        Args:
          variables: Flax variables of one seed.
          meta: what `fit` stores as `meta`.
          names: words for each cluster, or [].
          rule: what the run does with soft assignments.
          batch_size: rows at a time, over all devices; 0 is the batch size of the run.
        """
        method = from_config(meta["config"], meta["steps_per_epoch"])
        size = _padded(batch_size or meta["config"]["batch_size"])
        return cls(variables, meta, names, rule, make_infer(method.predict, size), make_infer(method.embed, size))

    def __reduce__(self) -> tuple:
        # Compiled functions don't pickle.
        return type(self).of, (jax.device_get(self.variables), self.meta, self.names, self.rule)

    def save(self, directory: Path, step: int) -> None:
        """Writes a checkpoint that `restore` can read. Its optimiser states are those of a new run.

        Args:
          directory: ``WORKDIR/checkpoints``.
          step: the step of the checkpoint.
        """
        method = from_config(self.config, self.meta["steps_per_epoch"])
        store = Store(directory)
        try:
            store.save(step, init_state(method, jax.tree.map(jnp.asarray, self.variables)), {}, dict(self.meta))
        finally:
            store.close()

    @classmethod
    def restore(cls, workdir: str | Path, *, batch_size: int = 0) -> Predictor:
        """Reads the newest intact checkpoint of a run. Of several seeds, it takes the one that the run kept.

        Args:
          workdir: the workdir of the run.
          batch_size: rows at a time, over all devices; 0 is the batch size of the run.

        Raises:
          UserError: there is no checkpoint, or none is intact, or several seeds have not finished.
        """
        workdir = Path(workdir).expanduser()
        directory = workdir / "checkpoints"
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
        result = finished(Path(workdir))
        seed_list, kept = seeds.seeds_of(config), _kept_seed(config, Path(workdir), result)
        abstract = jax.eval_shape(
            lambda batch: init_state(method, seeds.init_variables(method, seed_list, batch), len(seed_list)), example
        )
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), abstract)
        checkpoint = store.restore(abstract)
        if checkpoint is None:
            raise UserError(f"{workdir} holds no finished checkpoint yet")
        variables = checkpoint[1].variables
        if len(seed_list) > 1:
            variables = seeds.take_seed(variables, seed_list.index(kept))
        rule = Rule.read(Path(workdir))
        names = _names(Path(workdir) / "clusters.json", len(rule.ids) or config["num_clusters"], result)
        return cls.of(variables, {**meta, "config": {**config, "seed": kept, "num_seeds": 1}}, names, rule, batch_size)

    def predict_proba(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """Returns soft assignments, float [n, k]. Each row sums to 1.

        After corrections by hand, k is the number of corrected clusters, in the order of their numbers.
        """
        return self.rule.mapped(self.model_proba(features), lambda: self.embed(features))

    def model_proba(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """Returns soft assignments to the outputs of the model, before any corrections by hand, float [n, k]."""
        return self._predict(self.variables, features)

    def predict(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """Returns the cluster of each row, int [n]. It is -1 where the run rejects rows that it is not sure of."""
        return self.rule.clusters(self.predict_proba(features))

    def embed(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the features of the encoder, float [n, d]."""
        return self._embed(self.variables, features)


def _padded(size: int) -> int:
    """Returns `size` rounded up to a multiple of the number of devices. The last batch is padded in any case."""
    return size + -size % jax.device_count()


def _kept_seed(config: Mapping[str, Any], workdir: Path, result: Mapping[str, Any] | None) -> int:
    """Returns the seed to predict with."""
    if config["num_seeds"] > 1 and not result:
        raise UserError(
            f"{workdir} has not finished its {config['num_seeds']} seeds, so none is chosen: finish the run"
        )
    if result and result["seed"] not in seeds.seeds_of(config):
        raise UserError(f"{workdir / 'result.json'} names the seed {result['seed']}, which the run does not have")
    return result["seed"] if result else config["seed"]


def _names(path: Path, k: int, result: Mapping[str, Any] | None) -> list[list[str]]:
    """Returns the words of each cluster, or [] if the run has none.

    Raises:
      UserError: the file is not that of k clusters, or has other words than `result`.
    """
    clusters = read_json(path, list) or []
    named = [cluster.get("names") for cluster in clusters if isinstance(cluster, dict)]
    if clusters and (len(clusters) != k or len(named) != k or not all(isinstance(words, list) for words in named)):
        raise UserError(f"{path} is damaged: it does not name {k} clusters; delete it to go without names")
    names = [[str(word) for word in words or []] for words in named]
    stored = dict(enumerate((result or {}).get("names") or []))
    if stored and any(names) and names != [stored.get(cluster.get("cluster")) for cluster in clusters]:
        raise UserError(f"{path} is damaged: its names are not those of result.json; delete it to go without names")
    return names
