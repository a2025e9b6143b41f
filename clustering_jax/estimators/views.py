"""CMMC and DMIM of objects that are seen in several views."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from sklearn.utils.validation import validate_data

from clustering_jax import data, settings
from clustering_jax.data.base import Dataset
from clustering_jax.data.views.new_rows import new_rows
from clustering_jax.errors import UserError
from clustering_jax.estimators.base import DeepClustering, is_path

DATA = {"path": "", "views": "", "label_key": "", "mask_key": "", "transpose": False}


class ViewsClustering(DeepClustering):
    """What the estimators of views share.

    X is a list (or dictionary) of views, arrays [n, d_v] whose row i is the same object; one array [n, d], the views
    side by side; or what the data source "multiview" takes: a `.npz` or `.mat` file, or a folder of one file a view.
    In a list to predict, None stands for a view that the objects lack.

    Args:
      view_widths: how the columns of one array fall into views: the widths of all, or a number of views of equal width.
        None are two halves, with a warning: scikit-learn's own tools hand over one array, and which columns belong
        together nothing tells. Lists and paths don't need it.
      scaling: of the views, see `apply_scaling`. missing: "error", or "nan": rows of NaN are views that are missing.
      n_init: seeds trained side by side, of which one is kept without labels: see `num_seeds` in the method's manual.
      The others are those of `DeepClustering`.
    """

    def __init__(
        self,
        n_clusters: int | str,
        *,
        view_widths: int | Sequence[int] | None,
        scaling: str,
        missing: str,
        n_init: int,
        **common: Any,
    ):
        super().__init__(n_clusters, **common)
        self.view_widths, self.scaling, self.missing, self.n_init = view_widths, scaling, missing, n_init

    def _dataset(self, X: Any, config: dict[str, Any]) -> Dataset:
        if is_path(X):
            config["data"]["path"] = str(X)
            return data.load(**config["data"])
        views = self._listed(X)
        if views is None:
            X = self._checked(X, reset=True, ensure_min_samples=2, ensure_min_features=2)
            views = split(X, self._widths(X.shape[1]))
        return data.load(**{**config["data"], "path": _named(views)})

    def _features(self, X: Any) -> dict[str, np.ndarray]:
        scalings, views = self._predictor.scalings, self._listed(X)
        if scalings is None:
            raise UserError("this run was trained on generated views: there are no rows like them to assign")
        if views is None:
            X = self._checked(X, reset=False)
            views = split(X, [scalings[f"view{v}"]["columns"] for v in range(len(scalings))])
        if len(views) != len(scalings):
            raise UserError(f"X has {len(views)} views, trained were {len(scalings)}: give None for those that lack")
        there = [v for v, view in enumerate(views) if view is not None]
        # Of the options only this one is of arrays; the others say how to read files.
        options = {"missing": self._predictor.config["data"].get("missing", "error")}
        return new_rows(_named(views), options, scalings, there).features

    def _listed(self, X: Any) -> list[Any] | None:
        """The views of a list or dictionary; None where X is one array, which may be a list of rows."""
        views = list(X.values()) if isinstance(X, Mapping) else X
        if not isinstance(views, list | tuple) or not any(len(np.shape(view)) == 2 for view in views):
            return None
        return [view if view is None or hasattr(view, "toarray") else np.asarray(view) for view in views]

    def _checked(self, X: Any, **options: Any) -> np.ndarray:
        finite = "allow-nan" if self.missing == "nan" else True
        return validate_data(self, X, dtype=[np.float64, np.float32], ensure_all_finite=finite, **options)

    def _widths(self, columns: int) -> list[int]:
        given = 2 if self.view_widths is None else self.view_widths
        if self.view_widths is None:
            warnings.warn(
                f"X is one array: its {columns} columns are taken for two views, by halves; give a list of views, or "
                "view_widths, the columns of each",
                stacklevel=4,
            )
        if isinstance(given, Sequence):
            return list(given)
        if not 1 < given <= columns:
            raise UserError(f"view_widths is {given}: X can be split into 2 to {columns} views, or give their widths")
        return [len(part) for part in np.array_split(np.arange(columns), given)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing == "nan"
        return tags


def split(X: np.ndarray, widths: Sequence[int]) -> list[np.ndarray]:
    """[n, d] as views of these widths; UserError where they don't add up to d."""
    if min(widths) < 1 or sum(widths) != X.shape[1]:
        raise UserError(f"views of {', '.join(map(str, widths))} columns don't make the {X.shape[1]} of X")
    return np.split(X, np.cumsum(widths)[:-1], axis=1)


def _named(views: Sequence[Any]) -> dict[str, Any]:
    return {f"view{v}": view for v, view in enumerate(views) if view is not None}


class MultiViewClustering(ViewsClustering):
    """CMMC / MFLVC (arXiv 2106.11193) of two or more views of the same objects, of any widths.

    Args:
      reconstruction_epochs: of the autoencoders, before; 200 unless given. epochs: of the contrast, 50.
      batch_size: 256 unless given. The others are those of `ViewsClustering` and `DeepClustering`.
    """

    _method = "cmmc"

    def __init__(
        self,
        n_clusters: int | str = 10,
        *,
        view_widths: int | Sequence[int] | None = None,
        scaling: str = "minmax",
        missing: str = "error",
        n_init: int = 1,
        reconstruction_epochs: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        random_state: Any = None,
        verbose: int = 0,
        workdir: str | Path | None = None,
        settings: dict[str, Any] | None = None,
    ):
        super().__init__(
            n_clusters,
            view_widths=view_widths,
            scaling=scaling,
            missing=missing,
            n_init=n_init,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            random_state=random_state,
            verbose=verbose,
            workdir=workdir,
            settings=settings,
        )
        self.reconstruction_epochs = reconstruction_epochs

    def _defaults(self) -> ConfigDict:
        own = {} if self.reconstruction_epochs is None else {"reconstruction_epochs": self.reconstruction_epochs}
        found = {**DATA, "source": "multiview", "scaling": self.scaling, "missing": self.missing}
        return settings.cmmc(num_seeds=self.n_init, data=found, model=own)


class CrossModalClustering(ViewsClustering):
    """DMIM (AAAI 2021) of pairs of modalities, whose shared classes hide under stronger private ones.

    Args:
      width: principal components that each view is brought to. robust: the recipe of
        `configs/dmim_robust_planted.py`, which depends less on its seed, in place of the published one.
      epochs: 500 unless given. batch_size: None is all rows in each step, to some 50,000.
      The others are those of `ViewsClustering` and `DeepClustering`.
    """

    _method = "dmim"

    def __init__(
        self,
        n_clusters: int | str = 10,
        *,
        view_widths: int | Sequence[int] | None = None,
        scaling: str = "none",
        missing: str = "error",
        n_init: int = 1,
        width: int = 100,
        robust: bool = False,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        random_state: Any = None,
        verbose: int = 0,
        workdir: str | Path | None = None,
        settings: dict[str, Any] | None = None,
    ):
        super().__init__(
            n_clusters,
            view_widths=view_widths,
            scaling=scaling,
            missing=missing,
            n_init=n_init,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            random_state=random_state,
            verbose=verbose,
            workdir=workdir,
            settings=settings,
        )
        self.width, self.robust = width, robust

    def _defaults(self) -> ConfigDict:
        own = {"balanced": "mean", "double_softmax": False, "balance_weight": 0.1} if self.robust else {}
        found = {**DATA, "source": "multiview_pca", "scaling": self.scaling, "missing": self.missing}
        return settings.dmim(
            num_seeds=self.n_init,
            batch_size=0,
            data={**found, "width": self.width},
            model={**own, "full_batch": self.batch_size is None},
        )
