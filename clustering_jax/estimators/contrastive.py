"""Contrastive Clustering of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from clustering_jax import data, settings
from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.data.images.arrays import as_images
from clustering_jax.errors import UserError
from clustering_jax.estimators.base import DeepClustering, is_path


class ContrastiveClustering(DeepClustering):
    """Contrastive Clustering (CC, arXiv 2009.09687) of images.

    X is [n, h, w] or [n, h, w, 1 or 3], uint8 or floats in [0, 1]; a folder of photos; or a `.npy` or `.npz` file.
    Images other than those trained on may be predicted, of the same shape.

    Args:
      backbone: "resnet18", "resnet34" or "resnet50". image_size: pixels it sees. Without a GPU keep both small.
      epochs: 100 unless given. batch_size: 128. The others are those of `DeepClustering`; "auto" is not for images.
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
            images = as_images(np.asarray(X), "X")
            return Dataset({"image": images}, row_ids(len(images)), None, "X", "all")
        if config["data"]["source"] == "folder" and not Path(X).expanduser().is_dir():
            config["data"] = {"source": "arrays"}
        config["data"]["path"] = str(X)
        return data.load(**config["data"])

    def _features(self, X: Any) -> dict[str, np.ndarray]:
        images = as_images(np.asarray(X), "X")
        if images.shape[1:] != self._predictor.shapes["image"]:
            raise UserError(f"X has images {images.shape[1:]}, trained on were {self._predictor.shapes['image']}")
        return {"image": images}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags
