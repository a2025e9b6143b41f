"""The base class of the estimators: it makes a config, runs it in a directory and reads the results."""

from __future__ import annotations

import numbers
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import numpy as np
from ml_collections import ConfigDict
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from clustering_jax import metrics, run
from clustering_jax.data.base import Dataset
from clustering_jax.data.identity import identity
from clustering_jax.errors import UserError
from clustering_jax.estimators.corrections import Corrections
from clustering_jax.estimators.inputs import configured, is_path, labelled, without_warnings
from clustering_jax.estimators.storage import SEEN, Storage
from clustering_jax.inference.new_rows import examples
from clustering_jax.training.signals import Signals


class DeepClustering(Corrections, ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, Storage):
    """What the estimators share: a config, a run of it, and the results of the run.

    Args:
      n_clusters: number of clusters, at least 2. "auto" chooses it without labels, see docs/choose_k.md.
      epochs: passes over the rows; None is the default of the method.
      batch_size: rows of a step; None is the default of the method, reduced to the number of rows.
      learning_rate: peak learning rate of Adam; None is the default of the method.
      random_state: seed, as in scikit-learn. An integer is the seed ``--config.seed`` of the command line.
      verbose: 0 prints nothing, 1 prints what the command line prints.
      workdir: directory of the run, which continues there if it was interrupted. None uses a temporary directory.
      settings: any other key of the method's config by its name: ``{"model.width": 16}`` is
        ``--config.model.width=16``. The keys are documented in `clustering_jax.settings` and on the
        page of the method.

    Attributes:
      labels_: cluster of each row, int [n].
      probabilities_: probability of this cluster, float [n].
      ids_: file names of a folder, or row numbers; n strings.
      n_clusters_: number of clusters.
      n_iter_: number of training steps.
      rows_: second choices, outlier scores, duplicates and more, as arrays by name; see docs/edit.md.
      history_: lines of metrics.jsonl, as dictionaries.
      result_: contents of result.json: scores, protocol, versions and seconds.
      n_features_in_: number of columns, where X was one array [n, d].
      feature_names_in_: names of the columns, where X was a data frame with string names.
    """

    def __init__(
        self,
        n_clusters: int | str = 10,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        random_state: Any = None,
        verbose: int = 0,
        workdir: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
    ):
        self.n_clusters, self.epochs, self.batch_size = n_clusters, epochs, batch_size
        self.learning_rate, self.random_state = learning_rate, random_state
        self.verbose, self.workdir, self.settings = verbose, workdir, settings

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains on X.

        Args:
          X: data, see the class.
          y: labels, [n]. They only score the result, in `result_` and `history_`. With a path they are not used; set
            "data.label_key" or "data.labels_from_folders" in `settings` instead.

        Returns:
          The estimator.

        Raises:
          UserError: X or a parameter is not valid, or `workdir` holds a run of other data or parameters. It is a
            ValueError.
          Diverged: a loss was not finite.
          Interrupted: a signal arrived; `workdir` keeps the state of the training.
        """
        config, streams = self._config(), None
        for name in SEEN:
            self.__dict__.pop(name, None)
        dataset = self._dataset(X, config)
        if dataset is not None:
            streams = {"train": labelled(dataset, None if is_path(X) else y)}
            config["data"]["identity"] = identity(streams["train"])
            if self.batch_size is None:
                config["batch_size"] = min(config["batch_size"], dataset.num_examples)

        def load(changed: dict[str, Any]) -> dict[str, Dataset]:
            source = {name: value for name, value in changed["data"].items() if name != "identity"}
            dataset = self._dataset(X, changed := {**changed, "data": source})
            return {"train": labelled(dataset, None if is_path(X) else y)} if dataset else run.load_streams(changed)

        signals = Signals() if self.workdir is None else None
        given = "" if self.workdir is None else Path(self.workdir).expanduser()
        kept = tempfile.TemporaryDirectory() if self.workdir is None else nullcontext(given)
        with without_warnings(), kept as workdir:
            options = {"quiet": not self.verbose, "reported": self.workdir is not None}
            self._train(config, Path(workdir), signals, streams, load, **options)
            self._read(Path(workdir))
        return self

    def _train(
        self,
        config: dict[str, Any],
        workdir: Path,
        signals: Signals | None,
        streams: dict[str, Dataset] | None,
        load: Callable[[dict[str, Any]], dict[str, Dataset]],
        **options: Any,
    ) -> None:
        """Runs the config in a directory; `load` loads the data of another config of the same rows."""
        run.train(config, workdir, signals, streams=streams, **options)

    def _defaults(self) -> ConfigDict:
        """The method's config with this estimator's own parameters."""
        raise NotImplementedError

    def _dataset(self, X: Any, config: dict[str, Any]) -> Dataset | None:
        """The data set of X; None where the run reads it itself, from a path that is set in `config` here."""
        raise NotImplementedError

    def _features(self, X: Any) -> dict[str, np.ndarray]:
        """The features of new rows, as those of the training."""
        raise NotImplementedError

    def _config(self) -> dict[str, Any]:
        """The plain config of the run."""
        if self.n_clusters is None:
            raise UserError("n_clusters is None: give the number of clusters, or 'auto'")
        config, state = self._defaults(), check_random_state(self.random_state)
        chosen = isinstance(self.random_state, numbers.Integral)
        changes = {
            "num_clusters": 0 if self.n_clusters == "auto" else self.n_clusters,
            "seed": self.random_state if chosen else state.randint(2**31 - 1),
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "optimizer.learning_rate": self.learning_rate,
            "run.checkpoint_every": 0 if self.workdir is None else None,
        }
        return configured(config, {**{k: v for k, v in changes.items() if v is not None}, **(self.settings or {})})

    def _parts(self, X: Any) -> Iterator[dict[str, np.ndarray]]:
        """The features of X; a path is read in parts."""
        check_is_fitted(self)
        if not is_path(X):
            yield self._features(X)
            return
        for _, features in examples(self._predictor, X, self._predictor.config["batch_size"]):
            yield features

    def predict_proba(self, X: Any) -> np.ndarray:
        """Soft assignments of new rows.

        Args:
          X: rows, see the class.

        Returns:
          float32 [n, k], with k clusters in the order of their numbers.
        """
        return np.concatenate([self._predictor.predict_proba(part) for part in self._parts(X)])

    def predict(self, X: Any) -> np.ndarray:
        """Clusters of new rows.

        Args:
          X: rows, see the class.

        Returns:
          int [n]. With "reject" in `settings` it is -1 for rows that the model is not sure of.
        """
        probabilities = self.predict_proba(X)
        return self._predictor.rule.clusters(probabilities)

    def transform(self, X: Any) -> np.ndarray:
        """Features of new rows from the encoder.

        Args:
          X: rows, see the class.

        Returns:
          float32 [n, d].
        """
        return np.concatenate([self._predictor.embed(part) for part in self._parts(X)])

    def score(self, X: Any, y: Any = None) -> float:
        """Mean silhouette of the clusters in the space of `transform`.

        It needs no labels, and compares numbers of clusters. Between two trainings it compares their spaces too. It
        uses a sample of 10,000 rows where there are more.

        Args:
          X: rows, see the class.
          y: not used.

        Returns:
          Value in [-1, 1]; -1 for a single cluster.
        """
        value = metrics.silhouette(self.transform(X), self.predict_proba(X).argmax(1))
        return -1.0 if np.isnan(value) else value

    @property
    def _n_features_out(self) -> int:
        shapes = self._predictor.meta["features"]
        return self._predictor.embed({k: np.zeros((1, *shape), dtype) for k, (shape, dtype) in shapes.items()}).shape[1]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
