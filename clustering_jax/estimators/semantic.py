"""The estimator of embeddings, and of images with a CLIP model: DXMC."""

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
from clustering_jax.estimators.inputs import refuse_images


class SemanticClustering(DeepClustering):
    """DXMC (arXiv 2409.04561) of embeddings of CLIP or a similar model, with names for the clusters.

    X is an array of embeddings [n, d]; the path of a `.npz` with `image`, `nouns` and `noun_words`; a directory that
    `clustering_jax.embed` wrote; or, with `clip`, the path of a folder of photos. Rows are scaled to norm 1.

    Args:
      n_clusters: number of clusters, at least 2. "auto" chooses it without labels, see docs/choose_k.md.
      nouns: embeddings [m, d] of words by the same model; with `clip`, the path of a list of words or of WordNet. If
        this is None and X has no nouns, the rows themselves are used as words. This is no longer the published method,
        and the names of a cluster are then the numbers of its most characteristic rows.
      noun_words: the m words.
      clip: directory of a CLIP model.
      n_init: number of seeds that train side by side. The seed whose two modalities agree most is kept.
      epochs: passes over the rows; None is 20.
      batch_size: rows of a step; None is 512, reduced to the number of rows.
      learning_rate: peak learning rate of Adam; None is the default of the method.
      random_state: seed, as in scikit-learn. An integer is the seed ``--config.seed`` of the command line.
      verbose: 0 prints nothing, 1 prints what the command line prints.
      workdir: directory of the run, which continues there if it was interrupted. None uses a temporary directory.
      settings: any other key of the method's config by its name: ``{"model.neighbours": 20}`` is
        ``--config.model.neighbours=20``. The keys are documented in `clustering_jax.settings` and on the
        page of the method.

    Attributes:
      labels_: cluster of each row, int [n].
      probabilities_: probability of this cluster, float [n].
      ids_: file names of a folder, or row numbers; n strings.
      n_clusters_: number of clusters.
      n_iter_: number of training steps.
      history_: lines of metrics.jsonl, as dictionaries.
      result_: contents of result.json: scores, protocol, versions and seconds.
      cluster_names_: words of each cluster, the most characteristic first.
      n_features_in_: number of columns, where X was one array [n, d].
      feature_names_in_: names of the columns, where X was a data frame with string names.

    Example:
      >>> from clustering_jax.data.planted import planted_embeddings
      >>> from clustering_jax.estimators import SemanticClustering
      >>> data = planted_embeddings(47, num_clusters=3, width=8, num_nouns=12)
      >>> nouns, words = data.vocabulary.embeddings, data.vocabulary.words
      >>> small = {"model.hidden": 64, "model.instance_dim": 16, "model.neighbours": 10}
      >>> model = SemanticClustering(3, nouns=nouns, noun_words=words, epochs=60, random_state=0, settings=small)
      >>> sorted(set(model.fit_predict(data.features["image"]).tolist()))
      [0, 1, 2]
      >>> len(model.cluster_names_)
      3
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
            return self._with_words(Dataset({"image": rows}, row_ids(len(rows)), None, "X", "all"), config)
        root = Path(X).expanduser()
        if self.clip is None or not root.is_dir() or (root / MANIFEST).is_file():
            config["data"] |= {"path": str(X), "split": "train" if (root / MANIFEST).is_file() else "all"}
            return self._with_words(data.load(**config["data"]), config)
        photos = {"source": "folder", "path": str(X), "on_error": "skip"}
        config["data"]["split"] = "train"
        config["embed"] |= {"clip": str(self.clip), "nouns": str(self.nouns or ""), "splits": {"train": photos}}
        return None

    def _with_words(self, dataset: Dataset, config: dict[str, Any]) -> Dataset:
        """The data set with the words of the parameters; without them it keeps its own, or its rows stand in."""
        rows = dataset.features["image"]
        if self.nouns is None:
            config["model"] |= {} if dataset.vocabulary else {"words": "images"}
            return dataset
        nouns = unit_rows(self.nouns, "nouns")
        words = row_ids(len(nouns)) if self.noun_words is None else [str(word) for word in self.noun_words]
        if len(words) != len(nouns) or nouns.shape[1] != rows.shape[1]:
            shape = f"{nouns.shape} of {len(words)} noun_words"
            raise UserError(f"nouns are {shape}: they must be [m, {rows.shape[1]}], of m words")
        return dataset._replace(vocabulary=Vocabulary(words, nouns))

    def _features(self, X: Any) -> dict[str, np.ndarray]:
        rows, wanted = self._checked(X, reset=False), self._predictor.shapes["image"]
        if rows.shape[1:] != wanted:
            raise UserError(f"X has {rows.shape[1]} columns, the run was trained on {wanted[0]}")
        return {"image": rows}

    def _checked(self, X: Any, **options: Any) -> np.ndarray:
        refuse_images(X)
        return unit_rows(validate_data(self, X, dtype=[np.float64, np.float32], **options), "X")

    def _read(self, workdir: Path) -> None:
        super()._read(workdir)
        self.cluster_names_ = self._predictor.names
