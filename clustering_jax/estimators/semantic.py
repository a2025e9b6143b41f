"""DXMC of embeddings of images, and of images by a CLIP model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from sklearn.utils.validation import validate_data

from clustering_jax import data, settings
from clustering_jax.data.base import Dataset, Vocabulary, row_ids
from clustering_jax.data.embeddings import MANIFEST, unit_rows
from clustering_jax.errors import UserError
from clustering_jax.estimators.base import DeepClustering, is_path


class SemanticClustering(DeepClustering):
    """DXMC (arXiv 2409.04561) of embeddings [n, d], of CLIP or the like, with names for the clusters.

    X is such an array, a `.npz` with `image`, `nouns` and `noun_words`, a directory that `clustering_jax.embed` wrote,
    or with `clip` a folder of photos. Rows are brought to norm 1.

    Args:
      nouns: embeddings [m, d] of words by the same model; with `clip` the path of a list of words, or WordNet's. None,
        where X has none either, takes the rows themselves for words: then nothing of the outside enters, which is no
        longer the published method, and a cluster's names are the numbers of its most characteristic rows.
      noun_words: the m words. clip: directory of a CLIP model. n_init: seeds trained side by side.
      epochs: 20 unless given. batch_size: 512. The others are those of `DeepClustering`.

    Attributes:
      cluster_names_: words of each cluster, the most characteristic first. The others are those of `DeepClustering`.
    """

    _method = "dxmc"

    def __init__(
        self,
        n_clusters: int | str = 10,
        *,
        nouns: Any = None,
        noun_words: Sequence[str] | None = None,
        clip: str | Path | None = None,
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
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            random_state=random_state,
            verbose=verbose,
            workdir=workdir,
            settings=settings,
        )
        self.nouns, self.noun_words, self.clip, self.n_init = nouns, noun_words, clip, n_init

    def _defaults(self) -> ConfigDict:
        return settings.dxmc(num_seeds=self.n_init, data={**settings.EMBEDDINGS, "split": "all"})

    def _dataset(self, X: Any, config: dict[str, Any]) -> Dataset | None:
        if not is_path(X):
            rows = self._checked(X, reset=True, ensure_min_samples=2, ensure_min_features=2)
            return self._with_words(Dataset({"image": rows}, row_ids(len(rows)), None, "X", "all"))
        root = Path(X).expanduser()
        if self.clip is None or not root.is_dir() or (root / MANIFEST).is_file():
            config["data"] |= {"path": str(X), "split": "train" if (root / MANIFEST).is_file() else "all"}
            return self._with_words(data.load(**config["data"]))
        photos = {"source": "folder", "path": str(X), "on_error": "skip"}
        config["data"]["split"] = "train"
        config["embed"] |= {"clip": str(self.clip), "nouns": str(self.nouns or ""), "splits": {"train": photos}}
        return None

    def _with_words(self, dataset: Dataset) -> Dataset:
        """With the words of the parameters, its own, or its rows."""
        rows = dataset.features["image"]
        if self.nouns is None:
            return dataset if dataset.vocabulary else dataset._replace(vocabulary=Vocabulary(dataset.ids, rows))
        nouns = unit_rows(self.nouns, "nouns")
        words = row_ids(len(nouns)) if self.noun_words is None else [str(word) for word in self.noun_words]
        if len(words) != len(nouns) or nouns.shape[1] != rows.shape[1]:
            found = f"{nouns.shape} of {len(words)} noun_words"
            raise UserError(f"nouns are {found}: they must be [m, {rows.shape[1]}], of m words")
        return dataset._replace(vocabulary=Vocabulary(words, nouns))

    def _features(self, X: Any) -> dict[str, np.ndarray]:
        rows, wanted = self._checked(X, reset=False), self._predictor.shapes["image"]
        if rows.shape[1:] != wanted:
            raise UserError(f"X has {rows.shape[1]} columns, the run was trained on {wanted[0]}")
        return {"image": rows}

    def _checked(self, X: Any, **options: Any) -> np.ndarray:
        return unit_rows(validate_data(self, X, dtype=[np.float64, np.float32], **options), "X")

    def _read(self, workdir: Path) -> None:
        super()._read(workdir)
        self.cluster_names_ = self._predictor.names
