"""The estimator of paired modalities: DMIM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from clustering_jax import settings
from clustering_jax.estimators.views import DATA, ViewsClustering


class CrossModalClustering(ViewsClustering):
    """DMIM (AAAI 2021) of paired modalities with shared classes under stronger private classes.

    X is a list or dictionary of views, arrays [n, d_v] whose row i is the same object; one array [n, d] with the views
    side by side; or a path that the data source "multiview" reads: a `.npz` or `.mat` file, or a folder with one file
    for each view. In a list for prediction, None stands for a missing view.
    Views of a dictionary go by their names.

    Args:
      n_clusters: number of clusters, at least 2. "auto" chooses it without labels, see docs/choose_k.md.
      view_widths: columns of one array that make each view: the widths of all views, or the number of views of equal
        width. None splits the array into two halves, with a warning, because tools of scikit-learn pass one array and
        nothing says which columns belong together. Lists and paths do not need it.
      scaling: scaling of the views: "none", "pixels" (divide by 255), "minmax", "standard", "l2" or "tfidf".
      missing: "error", or "nan" for views that are missing in rows of NaN.
      recipe: "auto" trains k-means, spectral clustering, TURTLE and, above 2,000 rows, DMIM, each on views scaled
        to [0, 1] or to unit variance. It keeps the result that the views predict best, see docs/methods/kmeans.md.
        "quick" leaves DMIM out. "published" trains DMIM as its paper does. None is "published" if you
        give an argument that only the training of DMIM uses, else "auto". These arguments are `n_init`, `robust`,
        `epochs`, `batch_size`, `learning_rate` or `settings`.
      n_init: number of seeds that train side by side. One is kept, chosen without labels; see `num_seeds` in the manual
        of the method.
      width: number of principal components to which each view is projected.
      robust: use the recipe of `configs/dmim_robust_planted.py`, which depends less on the seed, instead of the
        published one.
      epochs: steps on all rows, or passes over the rows where `batch_size` is given; None is 500.
      batch_size: rows of a step; None is all rows, for up to some 50,000.
      learning_rate: peak learning rate of Adam; None is the default of the method.
      random_state: seed, as in scikit-learn. An integer is the seed ``--config.seed`` of the command line.
      verbose: 0 prints nothing, 1 prints what the command line prints.
      workdir: directory of the run, which continues there if it was interrupted. None uses a temporary directory.
      settings: any other key of the method's config by its name: ``{"model.power": 5.0}`` is
        ``--config.model.power=5.0``. The keys are documented in `clustering_jax.settings` and on the
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

    Example:
      >>> from clustering_jax.data.planted import planted
      >>> from clustering_jax.estimators import CrossModalClustering
      >>> views = list(planted(61, num_clusters=3, width=6, private=0.0).features.values())
      >>> model = CrossModalClustering(3, epochs=60, learning_rate=0.01, random_state=0)
      >>> sorted(set(model.fit_predict(views).tolist()))
      [0, 1, 2]
      >>> model.predict_proba([views[0][:5], None]).shape
      (5, 3)
    """

    _method = "dmim"

    def __init__(
        self,
        n_clusters: int | str = 10,
        *,
        view_widths: int | Sequence[int] | None = None,
        scaling: str = "none",
        missing: str = "error",
        recipe: str | None = None,
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
            recipe=recipe,
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

    def _trains_the_method(self) -> bool:
        return self.robust or super()._trains_the_method()

    def _defaults(self) -> ConfigDict:
        own = {"balanced": "mean", "double_softmax": False, "balance_weight": 0.1} if self.robust else {}
        multiview = {**DATA, "source": "multiview_pca", "scaling": self.scaling, "missing": self.missing}
        return settings.dmim(
            num_seeds=self.n_init,
            recipe=self._recipe(),
            batch_size=0,
            data={**multiview, "width": self.width},
            model={**own, "full_batch": self.batch_size is None},
        )
