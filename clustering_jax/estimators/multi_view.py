"""The estimator of views that complement each other: CMMC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from clustering_jax import settings
from clustering_jax.estimators.views import DATA, ViewsClustering


class MultiViewClustering(ViewsClustering):
    """CMMC / MFLVC (arXiv 2106.11193) of two or more views of the same objects, of any widths.

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
      recipe: "auto" trains k-means, spectral clustering, TURTLE and, above 2,000 rows, CMMC, each on views scaled
        to [0, 1] or to unit variance. It keeps the result that the views predict best, see docs/methods/kmeans.md.
        "quick" leaves CMMC out. "published" trains CMMC as its paper does. None is "published" if you
        give an argument that only the training of CMMC uses, else "auto". These arguments are `n_init`,
        `reconstruction_epochs`, `epochs`, `batch_size`, `learning_rate` or `settings`.
      n_init: number of seeds that train side by side. One is kept, chosen without labels; see `num_seeds` in the manual
        of the method.
      reconstruction_epochs: passes over the rows that train the autoencoders first; None is 200.
      epochs: passes over the rows in the contrastive stage; None is 50.
      batch_size: rows of a step; None is 256, reduced to the number of rows.
      learning_rate: peak learning rate of Adam; None is the default of the method.
      random_state: seed, as in scikit-learn. An integer is the seed ``--config.seed`` of the command line.
      verbose: 0 prints nothing, 1 prints what the command line prints.
      workdir: directory of the run, which continues there if it was interrupted. None uses a temporary directory.
      settings: any other key of the method's config by its name: ``{"model.latent_dim": 64}`` is
        ``--config.model.latent_dim=64``. The keys are documented in `clustering_jax.settings` and on the
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
      >>> from clustering_jax.estimators import MultiViewClustering
      >>> views = list(planted(47, num_clusters=3, width=6, private=0.0).features.values())
      >>> small = {"model.hidden": (32,), "model.latent_dim": 16, "model.matching_steps": 0}
      >>> model = MultiViewClustering(
      ...     3, reconstruction_epochs=0, epochs=60, learning_rate=0.01, random_state=0, settings=small
      ... )
      >>> sorted(set(model.fit_predict(views).tolist()))
      [0, 1, 2]
      >>> model.predict([None, views[1][:5]]).shape
      (5,)
    """

    _method = "cmmc"

    def __init__(
        self,
        n_clusters: int | str = 10,
        *,
        view_widths: int | Sequence[int] | None = None,
        scaling: str = "minmax",
        missing: str = "error",
        recipe: str | None = None,
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
        self.reconstruction_epochs = reconstruction_epochs

    def _trains_the_method(self) -> bool:
        return self.reconstruction_epochs is not None or super()._trains_the_method()

    def _defaults(self) -> ConfigDict:
        own = {} if self.reconstruction_epochs is None else {"reconstruction_epochs": self.reconstruction_epochs}
        multiview = {**DATA, "source": "multiview", "scaling": self.scaling, "missing": self.missing}
        return settings.cmmc(num_seeds=self.n_init, recipe=self._recipe(), data=multiview, model=own)
