"""The estimators of objects in several views: CMMC and DMIM."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from clustering_jax import data
from clustering_jax import recipe as recipes
from clustering_jax.data.base import Dataset
from clustering_jax.data.views.files import open_source
from clustering_jax.data.views.new_rows import new_rows
from clustering_jax.errors import UserError, nearest
from clustering_jax.estimators.base import DeepClustering, is_path
from clustering_jax.estimators.inputs import refuse_images

DATA = {"path": "", "views": "", "label_key": "", "mask_key": "", "transpose": False}


class ViewsClustering(DeepClustering):
    """What the estimators of views share.

    X is a list or dictionary of views, arrays [n, d_v] whose row i is the same object; one array [n, d] with the views
    side by side; or a path that the data source "multiview" reads: a `.npz` or `.mat` file, or a folder with one file
    for each view. In a list for prediction, None stands for a missing view. Views of a dictionary go by their names.

    Args:
      n_clusters: number of clusters, at least 2. "auto" chooses it without labels, see docs/choose_k.md.
      view_widths: columns of one array that make each view: the widths of all views, or the number of views of equal
        width. None splits the array into two halves, with a warning, because tools of scikit-learn pass one array and
        nothing says which columns belong together. Lists and paths do not need it.
      scaling: scaling of the views: "none", "pixels" (divide by 255), "minmax", "standard", "l2" or "tfidf".
      missing: "error", or "nan" for views that are missing in rows of NaN.
      recipe: "auto" trains k-means, spectral clustering, TURTLE and, above 2,000 rows, the method, each on views scaled
        to [0, 1] or to unit variance. It keeps the result that the views predict best, see docs/methods/kmeans.md.
        "quick" leaves the method out. "published" trains the method as its paper does. None is "published" if you
        give an argument that only the training of the method uses, else "auto". These arguments are `n_init`, `epochs`,
        `batch_size`, `learning_rate` or `settings`.
      n_init: number of seeds that train side by side. One is kept, chosen without labels; see `num_seeds` in the manual
        of the method.
      epochs: passes over the rows; None is the default of the method.
      batch_size: rows of a step; None is the default of the method, reduced to the number of rows.
      learning_rate: peak learning rate of Adam; None is the default of the method.
      random_state: seed, as in scikit-learn. An integer is the seed ``--config.seed`` of the command line.
      verbose: 0 prints nothing, 1 prints what the command line prints.
      workdir: directory of the run, which continues there if it was interrupted. None uses a temporary directory.
      settings: any other key of the method's config by its name: ``{"model.hidden": (64,)}`` is
        ``--config.model.hidden=(64,)``. The keys are documented in `clustering_jax.settings` and on the
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
      view_names_: names of the views, where X was a dictionary.
    """

    _others: tuple[str, ...] = recipes.METHODS

    def __init__(
        self,
        n_clusters: int | str,
        *,
        view_widths: int | Sequence[int] | None,
        scaling: str,
        missing: str,
        recipe: str | None,
        n_init: int,
        **common: Any,
    ):
        super().__init__(n_clusters, **common)
        self.recipe = recipe
        self.view_widths, self.scaling, self.missing, self.n_init = view_widths, scaling, missing, n_init

    def _recipe(self) -> str:
        return self.recipe or ("published" if self._trains_the_method() else "auto")

    def _trains_the_method(self) -> bool:
        """Whether an argument concerns the training of the method alone."""
        given = (self.epochs, self.batch_size, self.learning_rate)
        return self.n_init != 1 or bool(self.settings) or any(value is not None for value in given)

    def _train(self, config, workdir, signals, streams, load, **options):
        recipes.train(config, workdir, signals, streams, load, **options)

    def _dataset(self, X: Any, config: dict[str, Any]) -> Dataset | None:
        if is_path(X):
            config["data"]["path"] = str(X)
            return data.load(**config["data"])
        views = self._listed(X)
        if isinstance(X, Mapping):
            self.view_names_ = [str(name) for name in X]
        if views is not None and len(views) < 2:
            raise UserError(
                "X is a list of one view; if GridSearchCV or another tool of scikit-learn made it, which splits a list "
                "by views and not by rows: give np.concatenate(views, axis=1) and view_widths, the columns of each"
            )
        if views is None:
            X = self._checked(X, reset=True, ensure_min_samples=2, ensure_min_features=2)
            views = split(X, self._widths(X.shape[1]))
        return data.load(**{**config["data"], "path": _named(views)})

    def _features(self, X: Any) -> dict[str, np.ndarray]:
        scalings, views = self._predictor.scalings, self._listed(self._in_order(X))
        if scalings is None:
            raise UserError("this run was trained on generated views: there are no rows like them to assign")
        if views is None:
            X = self._checked(X, reset=False)
            views = split(X, [scalings[f"view{v}"]["columns"] for v in range(len(scalings))])
        if len(views) != len(scalings):
            raise UserError(
                f"X has {len(views)} views but the model was trained on {len(scalings)}; pass None for a missing view"
            )
        present = [v for v, view in enumerate(views) if view is not None]
        # The other options say how to read files.
        options = {"missing": self._predictor.config["data"].get("missing", "error")}
        return new_rows(open_source(_named(views)), options, scalings, present).features

    def _in_order(self, X: Any) -> Any:
        """The views of a dictionary in the order of the training, None for those that it lacks; else X itself.

        A training on a list knows no names: the order of the dictionary then is that of the list.
        """
        trained = getattr(self, "view_names_", None)
        if not isinstance(X, Mapping) or trained is None:
            return X
        wrong = next((name for name in map(str, X) if name not in trained), None)
        if wrong is not None:
            raise UserError(f"X has a view '{wrong}', which the model was not trained on{nearest(wrong, trained)}")
        named = {str(name): view for name, view in X.items()}
        return [named.get(name) for name in trained]

    def _listed(self, X: Any) -> list[Any] | None:
        """The views of a list or dictionary; None where X is one array or a list of rows."""
        views = list(X.values()) if isinstance(X, Mapping) else X
        if not isinstance(views, list | tuple) or not any(len(np.shape(view)) == 2 for view in views):
            return None
        return [view if view is None or hasattr(view, "toarray") else _array(view) for view in views]

    def _checked(self, X: Any, **options: Any) -> np.ndarray:
        refuse_images(X)
        finite = "allow-nan" if self.missing == "nan" else True
        X = _array(X) if isinstance(X, np.ma.MaskedArray) else X
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
    """Splits an array [n, d] into views.

    Args:
      X: the array.
      widths: number of columns of each view.

    Returns:
      The views.

    Raises:
      UserError: the widths do not add up to d.
    """
    if min(widths) < 1 or sum(widths) != X.shape[1]:
        raise UserError(f"views of {', '.join(map(str, widths))} columns don't make the {X.shape[1]} of X")
    return np.split(X, np.cumsum(widths)[:-1], axis=1)


def _array(view: Any) -> np.ndarray:
    """The view as an array, with NaN where it is masked."""
    array = np.asanyarray(view)
    if not isinstance(array, np.ma.MaskedArray):
        return np.asarray(view)
    return np.ma.filled(array.astype(np.result_type(array.dtype, np.float32)), np.nan)


def _named(views: Sequence[Any]) -> dict[str, Any]:
    return {f"view{v}": view for v, view in enumerate(views) if view is not None}
