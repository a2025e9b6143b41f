"""The estimator of images: CC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from clustering_jax import data, settings
from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.data.images.arrays import as_images, refuse_constant
from clustering_jax.errors import UserError
from clustering_jax.estimators.base import DeepClustering, is_path


class ContrastiveClustering(DeepClustering):
    """Contrastive Clustering (CC, arXiv 2009.09687) of images.

    X is an array [n, h, w] or [n, h, w, c] with c 1 or 3, uint8 or float in [0, 1]; the path of a folder of photos; or
    the path of a `.npy` or `.npz` file. New images for prediction must have the shape of the training images.

    Args:
      n_clusters: number of clusters, at least 2; "auto" is not for images.
      backbone: encoder, "resnet18", "resnet34" or "resnet50".
      image_size: side of the images that the encoder sees, in pixels. Without a GPU keep it and the encoder small.
      epochs: passes over the images; None is 100.
      batch_size: images of a step; None is 128, reduced to the number of images.
      learning_rate: peak learning rate of Adam; None is the default of the method.
      random_state: seed, as in scikit-learn. An integer is the seed ``--config.seed`` of the command line.
      verbose: 0 prints nothing, 1 prints what the command line prints.
      workdir: directory of the run, which continues there if it was interrupted. None uses a temporary directory.
      settings: any other key of the method's config by its name: ``{"model.width": 16}`` is
        ``--config.model.width=16``. The keys are documented in `clustering_jax.settings` and on the
        page of the method.

    Attributes:
      labels_: cluster of each image, int [n].
      probabilities_: probability of this cluster, float [n].
      ids_: file names of a folder, or row numbers; n strings.
      n_clusters_: number of clusters.
      n_iter_: number of training steps.
      history_: lines of metrics.jsonl, as dictionaries.
      result_: contents of result.json: scores, protocol, versions and seconds.

    Example:
      >>> from clustering_jax.data.images.folder import synthetic
      >>> from clustering_jax.estimators import ContrastiveClustering
      >>> images = synthetic(n=31, size=8, num_clusters=2).features["image"]
      >>> model = ContrastiveClustering(2, image_size=8, epochs=1, random_state=0, settings={"model.width": 4})
      >>> model.fit(images).labels_.shape
      (31,)
      >>> model.predict_proba(images[:5]).shape
      (5, 2)
    """

    _method = "cc"

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        backbone: str = "resnet18",
        image_size: int = 32,
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
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            random_state=random_state,
            verbose=verbose,
            workdir=workdir,
            settings=settings,
        )
        self.backbone, self.image_size = backbone, image_size

    def _defaults(self) -> ConfigDict:
        # As in configs/cc_folder.py a folder is read a quarter larger, for crops.
        photos = {"source": "folder", "path": "", "size": self.image_size * 5 // 4, "on_error": "skip"}
        return settings.cc(
            epochs=100,
            batch_size=128,
            data={**photos, "labels_from_folders": False},
            model={"backbone": self.backbone, "image_size": self.image_size},
        )

    def _dataset(self, X: Any, config: dict[str, Any]) -> Dataset:
        if not is_path(X):
            config["data"] = {"source": "arrays", "path": ""}
            images = _images(X)
            refuse_constant(images, "X")
            return Dataset({"image": images}, row_ids(len(images)), None, "X", "all")
        if config["data"]["source"] == "folder" and not Path(X).expanduser().is_dir():
            config["data"] = {"source": "arrays"}
        config["data"]["path"] = str(X)
        return data.load(**config["data"])

    def _features(self, X: Any) -> dict[str, np.ndarray]:
        images = _images(X)
        if images.shape[1:] != self._predictor.shapes["image"]:
            shape = self._predictor.shapes["image"]
            raise UserError(f"X has images {images.shape[1:]}, but the model was trained on {shape}")
        return {"image": images}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags


def _images(X: Any) -> np.ndarray:
    if hasattr(X, "toarray"):
        raise UserError("X is sparse: images must be a dense array [n, h, w] or [n, h, w, c]")
    return as_images(np.asarray(X), "X")
