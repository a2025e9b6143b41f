"""Corrections of a fitted estimator by hand, and new rows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sklearn.utils.validation import check_is_fitted

from clustering_jax.data.base import Dataset
from clustering_jax.editing import Request, Training, edit, update
from clustering_jax.editing.request import checked_pairs, from_json
from clustering_jax.errors import UserError
from clustering_jax.estimators.inputs import is_path, labelled, without_warnings


class Corrections:
    """The methods of an estimator that correct its clusters and add rows. `DeepClustering` gives it the others."""

    def edit(self: Any, X: Any, y: Any = None, **corrections: Any) -> Any:
        """Corrects the clusters by hand, without training. `predict` follows the corrections.

        Args:
          X: the rows of `fit`.
          y: their labels, which only score the result.
          **corrections: ``merge=[(3, 7)]``, ``split={5: 3}``, ``rename={2: "street signs"}``, ``move={ID: 4}`` with ids
            as in `ids_`, ``lock=[4]`` and ``unlock=[4]``, see docs/edit.md. All numbers are those before.

        Returns:
          The estimator.

        Raises:
          UserError: a correction can't be made, or X are not the rows of `fit`.
        """
        return self._corrected(X, y, edit, from_json(corrections, "edit"))

    def refit(
        self: Any,
        X: Any,
        y: Any = None,
        *,
        labels: Mapping[Any, Any] | None = None,
        pairs: Sequence[tuple[Any, Any, Any]] = (),
        steps: int = Training().steps,
        encoder: bool = False,
    ) -> Any:
        """Trains for a short phase on the corrected clusters, a few labels, and pairs of rows.

        Args:
          X: the rows of `fit`.
          y: their labels, which only score the result.
          labels: class of a few rows by their ids, as in `ids_`: ``{"17": "bus", "40": "tram"}``.
          pairs: ``(ID, ID, True)`` for rows of the same cluster, ``(ID, ID, False)`` for rows of different ones.
          steps: number of training steps.
          encoder: whether to train the encoder too, and not the heads alone.

        Returns:
          The estimator.

        Raises:
          UserError: a row does not exist, there are more classes than clusters, or X are not the rows of `fit`.
        """
        named = {str(row): str(label) for row, label in (labels or {}).items()}
        more = {"labels": named, "pairs": checked_pairs(pairs, "pairs"), "quiet": not self.verbose}
        return self._corrected(X, y, edit, Request(), training=Training(steps, encoder), **more)

    def update(
        self: Any,
        X: Any,
        X_new: Any,
        y: Any = None,
        *,
        new_clusters: Sequence[int] | str = (),
        steps: int = Training().steps,
        encoder: bool = False,
    ) -> Any:
        """Adds new rows, and goes on with the training on all rows; see docs/edit.md. Clusters keep their numbers.

        `labels_` and the other attributes then have the old rows and, behind them, the new ones. `result_["updates"]`
        says how many new rows fit no cluster, and which of them form groups of their own. For the next `edit`, `refit`
        or `update`, X are all rows in this order.

        Args:
          X: the rows of `fit`, and of earlier updates. Folders and files are for the command `update`.
          X_new: the new rows, of the same kind.
          y: labels of X, which only score the result.
          new_clusters: numbers of the groups of new rows that become clusters, or "all".
          steps: number of training steps; 0 does not train.
          encoder: whether to train the encoder too, and not the heads alone.

        Returns:
          The estimator.

        Raises:
          UserError: the rows are of another kind, there is no such group, the method can't be trained further, or X are
            not the rows of `fit`.
        """
        check_is_fitted(self)
        if is_path(X) or is_path(X_new):
            raise UserError("update takes arrays: for files set workdir, and use the command clustering-jax update")
        features = self._features(X_new)
        first, count = len(self.ids_), len(next(iter(features.values())))
        added = Dataset(features, [str(first + row) for row in range(count)], None, "X_new", "added")
        training = Training(steps, encoder) if steps else None
        more = {"new_clusters": new_clusters, "training": training, "quiet": not self.verbose}
        return self._corrected(X, y, update, added, **more)

    def _corrected(self: Any, X: Any, y: Any, change: Callable[..., Any], what: Any, **options: Any) -> Any:
        """Saves the estimator, changes it by `edit` or `update`, and reads it again."""
        check_is_fitted(self)
        dataset = self._dataset(X, self._config())
        dataset = None if dataset is None else labelled(dataset, None if is_path(X) else y)
        if dataset is not None and dataset.scalings and not is_path(X):
            # After an update X has more rows than the scaling was fitted on.
            dataset = dataset._replace(features=self._features(X), scalings=self._predictor.scalings)
        with without_warnings(), tempfile.TemporaryDirectory() as directory:
            self.save(Path(directory) / "before")
            change(Path(directory) / "before", Path(directory) / "after", what, dataset, **options)
            self._read(Path(directory) / "after")
        return self
