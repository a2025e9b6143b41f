"""Corrections of a fitted estimator by hand."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sklearn.utils.validation import check_is_fitted

from clustering_jax.editing import Request, Training, edit
from clustering_jax.editing.request import checked_pairs, from_json
from clustering_jax.estimators.inputs import is_path, labelled, without_warnings


class Corrections:
    """The methods of an estimator that correct its clusters. `DeepClustering` gives it the others."""

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
        return self._corrected(X, y, from_json(corrections, "edit"))

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
        return self._corrected(X, y, Request(), training=Training(steps, encoder), **more)

    def _corrected(self: Any, X: Any, y: Any, request: Request, **training: Any) -> Any:
        check_is_fitted(self)
        dataset = self._dataset(X, self._config())
        dataset = None if dataset is None else labelled(dataset, None if is_path(X) else y)
        with without_warnings(), tempfile.TemporaryDirectory() as directory:
            self.save(Path(directory) / "before")
            edit(Path(directory) / "before", Path(directory) / "after", request, dataset, **training)
            self._read(Path(directory) / "after")
        return self
