"""Fitted estimators in directories: written by `save`, read by `load`, and read from a finished run."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from clustering_jax import run
from clustering_jax.errors import UserError
from clustering_jax.estimators.inputs import columns_of, is_json, text_of, without_warnings
from clustering_jax.files import new_directory, output_directory, read_json, read_json_lines, write_atomic, write_json
from clustering_jax.inference.predictor import Predictor
from clustering_jax.training.workdir import check_assignments, finished

# Files of a finished workdir besides its checkpoints.
FILES = ("config.json", "result.json", "metrics.jsonl", "assignments.csv", "clusters.json", "edits.json", run.CHOSEN)
ESTIMATOR = "estimator.json"
SEEN = ("n_features_in_", "feature_names_in_", "view_names_")


class Storage(BaseEstimator):
    """The methods of an estimator that write and read it. `DeepClustering` gives it the others."""

    _method = ""
    # Methods whose runs the estimator reads too.
    _others: tuple[str, ...] = ()

    def save(self, path: str | Path) -> None:
        """Writes the fitted estimator to a directory, which ``python -m clustering_jax.predict`` reads too.

        Args:
          path: a new or empty directory.

        Raises:
          UserError: the directory is not empty, or it can't be written.
        """
        check_is_fitted(self)
        workdir = output_directory(path, "path")
        if workdir.exists() and not (workdir.is_dir() and not any(workdir.iterdir())):
            raise UserError(f"{path} is there already: save to a new directory")
        seen = {name: np.asarray(getattr(self, name)).tolist() for name in SEEN if hasattr(self, name)}
        params = {name: value for name, value in self.get_params(deep=False).items() if is_json(value)}
        with new_directory(workdir, "path") as partial:
            with without_warnings():
                self._predictor.save(partial / "checkpoints", self.n_iter_)
            for name, text in self._files.items():
                write_atomic(partial / name, [text])
            write_json(partial / ESTIMATOR, {"params": params, "seen": seen})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a saved estimator, or a run of the command line.

        Parameters that JSON cannot hold, such as arrays and a RandomState, have their defaults again.

        Args:
          path: directory of `save`, or the ``--workdir`` of a run.

        Returns:
          The fitted estimator.

        Raises:
          UserError: the directory holds no finished run of this method, or a damaged one.
        """
        path = Path(path).expanduser()
        saved = read_json(path / ESTIMATOR, dict)
        if saved is None and (path / ESTIMATOR).is_file():
            raise UserError(f"{path / ESTIMATOR} is damaged: remove it to load the run without its parameters")
        params: Any = (saved or {}).get("params", {})
        if not isinstance(params, dict) or not set(params) <= set(cls._get_param_names()):
            raise UserError(f"{path} holds another estimator than {cls.__name__}: load it by its own class")
        estimator = cls(**params)
        with without_warnings():
            estimator._read(path)
        if not saved:
            estimator.set_params(n_clusters=estimator.n_clusters_)
        for name, value in ((saved or {}).get("seen") or {}).items():
            setattr(estimator, name, np.array(value, object) if isinstance(value, list) else value)
        return estimator

    def _read(self, workdir: Path) -> None:
        """Sets the fitted attributes from a finished run."""
        predictor = Predictor.restore(workdir)
        if predictor.config["method"] not in (self._method, *self._others):
            raise UserError(
                f"{workdir} holds a run of {predictor.config['method']}, {type(self).__name__} is of {self._method}"
            )
        result = finished(workdir)
        if result is None:
            raise UserError(f"{workdir} holds a run that has not finished: finish it by the command that began it")
        check_assignments(workdir, result)
        try:
            files = {name: text_of(workdir / name) for name in FILES if (workdir / name).is_file()}
            rows = list(csv.DictReader(io.StringIO(files["assignments.csv"])))
            self.ids_ = [row["id"] for row in rows]
            self.labels_ = np.array([int(row["cluster"]) for row in rows])
            self.rows_ = columns_of(rows)
            self.probabilities_ = np.array([float(row["probability"]) for row in rows])
        except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
            raise UserError(f"{workdir / 'assignments.csv'} is damaged or can't be read ({error})") from error
        self.history_ = read_json_lines(workdir / "metrics.jsonl")[0]
        self.result_ = result
        self.n_iter_ = self.history_[-1]["step"] if self.history_ else 0
        self.n_clusters_ = len(predictor.clusters)
        self._predictor, self._files = predictor, files
