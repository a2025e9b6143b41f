"""TURTLE and TEMI: clustering heads on frozen features, or on photos that a pretrained encoder embeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from ml_collections import ConfigDict

from clustering_jax import data, settings
from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.data.embeddings import MANIFEST, unit_rows
from clustering_jax.data.images.arrays import as_images
from clustering_jax.data.images.for_embedding import array_rows
from clustering_jax.data.kinds import PHOTOS, kind_of
from clustering_jax.errors import UserError
from clustering_jax.estimators.base import is_path
from clustering_jax.estimators.inputs import is_images
from clustering_jax.estimators.views import DATA, ViewsClustering
from clustering_jax.files import read_json
from clustering_jax.inference.embedding import iter_embedded
from clustering_jax.inference.image_model import image_model_of

HEADS = ("turtle", "temi")


class FeatureClustering(ViewsClustering):
    """TURTLE (arXiv 2406.07236) or TEMI (arXiv 2303.17896) on the frozen features of one or several encoders.

    X is a folder of photos or images [n, h, w] or [n, h, w, c], which `encoder` embeds first; or features: one array
    [n, d], whose rows are brought to norm 1; a list (or dictionary) of feature spaces [n, d_v], which keep their norms;
    or a path as the data source "embeddings" takes it. Each space is multiplied by one number. In a list to predict,
    None stands for a space that the rows lack.

    Args:
      n_clusters: number of clusters, at least 2. "auto" chooses it without labels, see docs/choose_k.md.
      head: "turtle" for one or several feature spaces, or "temi" for one array or a path.
      encoder: pretrained encoder of photos and images: "lite0" of the extra "photos", or another value of
        `embed.encoder`, such as the directory of a DINOv2 model. Features need none.
      view_widths: columns of one array that make each feature space, for "turtle": the widths of all spaces, or the
        number of spaces of equal width. None is one space.
      missing: "error", or "nan" for a list in which a row of NaN lacks the space.
      n_init: number of seeds that train side by side. One is kept, chosen without labels.
      epochs: passes over the rows; None is 6,000 steps for "turtle" and 100 passes for "temi".
      batch_size: rows of a step; None is 10,000 for "turtle" and 1,024 for "temi", reduced to the number of rows.
      learning_rate: peak learning rate of Adam; None is the default of the method.
      random_state: seed, as in scikit-learn. An integer is the seed ``--config.seed`` of the command line.
      verbose: 0 prints nothing, 1 prints what the command line prints.
      workdir: directory of the run, which continues there if it was interrupted. None uses a temporary directory.
      settings: any other key of the method's config by its name: ``{"model.gamma": 5.0}`` is
        ``--config.model.gamma=5.0``. The keys are documented in `clustering_jax.settings` and on the page of the
        method.

    Attributes:
      labels_: cluster of each row, int [n].
      probabilities_: probability of this cluster, float [n].
      ids_: row numbers or ids of the file, n strings.
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
      >>> from clustering_jax.estimators import FeatureClustering
      >>> spaces = list(planted(47, num_clusters=3, width=6, private=0.0).features.values())
      >>> settings = {"model.inner_learning_rate": 0.1}
      >>> model = FeatureClustering(3, epochs=200, learning_rate=0.01, random_state=0, settings=settings)
      >>> sorted(set(model.fit_predict(spaces).tolist()))
      [0, 1, 2]
      >>> model.predict_proba([None, spaces[1][:5]]).shape
      (5, 3)
    """

    _embeds = False  # whether `fit` got photos

    def __init__(
        self,
        n_clusters: int | str = 10,
        *,
        head: str = "turtle",
        encoder: str | Path = "lite0",
        view_widths: int | Sequence[int] | None = None,
        missing: str = "error",
        n_init: int = 1,
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
            scaling="none",
            missing=missing,
            recipe="published",
            n_init=n_init,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            random_state=random_state,
            verbose=verbose,
            workdir=workdir,
            settings=settings,
        )
        self.head, self.encoder = head, encoder

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains on X; the arguments and errors are those of `DeepClustering.fit`."""
        self._embeds = _is_photos(X)
        return super().fit(X, y)

    _others = ()

    @property
    def _method(self) -> str:  # type: ignore[override]
        return self.head

    def _defaults(self) -> ConfigDict:
        if self.head not in HEADS:
            raise UserError(f"head is '{self.head}': choose {' or '.join(HEADS)}")
        embeddings: dict[str, Any] = {"num_seeds": self.n_init, "data": {**settings.EMBEDDINGS, "split": "all"}}
        if self._embeds:
            embeddings |= {"data": settings.PHOTOS, "embed": {"encoder": str(self.encoder)}}
        if self.head == "temi":
            return settings.temi(**embeddings)
        return settings.turtle(**embeddings, model={} if self.epochs is None else {"num_steps": 0})

    def _dataset(self, X: Any, config: dict[str, Any]) -> Dataset | None:
        if self._embeds and is_path(X):
            config["data"]["path"] = str(X)
            return None
        if self._embeds:
            config["data"] = {**settings.EMBEDDINGS, "split": "all"}
            return _embedded(X, config)
        if is_path(X):
            written = (Path(X).expanduser() / MANIFEST).is_file()
            config["data"] |= {"path": str(X), "split": "train" if written else "all"}
            return data.load(**config["data"])
        several = self._listed(X) is not None or self.view_widths is not None
        if several and self.head == "temi":
            raise UserError("temi takes one feature space: give X as one array without view_widths, or head='turtle'")
        if several:
            config["data"] = {**DATA, "source": "multiview", "scaling": self.scaling, "missing": self.missing}
            return super()._dataset(X, config)
        rows = unit_rows(self._checked(X, reset=True, ensure_min_samples=2, ensure_min_features=2), "X")
        return Dataset({"image": rows}, row_ids(len(rows)), None, "X", "all")

    def _features(self, X: Any) -> dict[str, np.ndarray]:
        if is_images(X):
            return _embedded(X, self._predictor.config).features
        if "image" not in self._predictor.shapes:
            return super()._features(X)
        rows, (columns,) = self._checked(X, reset=False), self._predictor.shapes["image"]
        if rows.shape[1] != columns:
            raise UserError(f"X has {rows.shape[1]} columns, the run was trained on {columns}")
        return {"image": unit_rows(rows, "X")}

    def _read(self, workdir: Path) -> None:
        # `load` reads the run of a command line too, which has no parameters of an estimator.
        config = read_json(workdir / "config.json") or {}
        if config.get("method") in HEADS and config["method"] != self.head:
            self.head = config["method"]
        encoder = config.get("embed", {}).get("encoder")
        if encoder and encoder != str(self.encoder):
            self.encoder = encoder
        self._embeds = bool(encoder)
        super()._read(workdir)


def _is_photos(X: Any) -> bool:
    """Whether X has to be embedded: images in memory, or a folder of image files."""
    if not is_path(X):
        return is_images(X)
    path = Path(X).expanduser()
    return path.is_dir() and not (path / MANIFEST).is_file() and kind_of(path) == PHOTOS


def _embedded(X: Any, config: Mapping[str, Any]) -> Dataset:
    """Embeds images by the encoder of a config, as rows of norm 1."""
    model = image_model_of(config)
    if model is None:
        raise UserError("X holds images, but the run was trained on features: embed the images as those were")
    images = as_images(np.asarray(X), "X")
    dataset = Dataset({"image": images}, row_ids(len(images)), None, "X", "all")
    parts = [rows for _, rows in iter_embedded(array_rows(dataset), model, config["embed"]["batch_size"])]
    return dataset._replace(features={"image": unit_rows(np.concatenate(parts), "X")})
