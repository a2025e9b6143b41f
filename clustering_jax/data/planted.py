"""Planted pairs: modalities with shared classes to be found and private ones to be passed over."""

from __future__ import annotations

import numpy as np

from clustering_jax.data.base import Dataset, Vocabulary, row_ids
from clustering_jax.data.embeddings import unit_rows
from clustering_jax.data.views.pca import apply_pca, common_width, fit_pca
from clustering_jax.errors import UserError

NOISE = 0.1
# k-means finds the private classes of the default, accuracy .15; here it finds the shared ones.
EASY = {"n": 1000, "shared": 1.0}


def planted(
    n: int = 2000,
    *,
    shared: float = 0.7,
    private: float = 1.0,
    num_clusters: int = 8,
    width: int = 100,
    views: int = 2,
    seed: int = 0,
) -> Dataset:
    """Modalities ``shared M[y] + private P[u] + noise``, each turned to its principal axes.

    y are the shared classes, of equal size up to one and sorted, u a modality's own, uniform and independent; rows of M
    and P are random directions, different in each modality, the noise has deviation .1.

    Args:
      n: rows, at least 2. shared, private: strengths of the classes' directions, >= 0.
      num_clusters: shared classes, and private ones of each modality; 1 to `n`.
      width: columns of each modality; n - 1 are left where those are fewer.
      views: modalities, at least 1. seed: at least 0.

    Returns:
      float32 [n, width] "view0", "view1", ...; labels are y.

    Raises:
      UserError: a number out of its range.
    """
    if not (
        n >= 2 and width >= 1 and 1 <= num_clusters <= n and views >= 1 and seed >= 0 and min(shared, private) >= 0
    ):
        given = f"n={n}, width={width}, num_clusters={num_clusters}, views={views}, seed={seed}"
        raise UserError(
            f"planted data need n >= 2, width >= 1, 1 to n clusters, views >= 1 and nothing below 0: {given}"
        )
    rng = np.random.default_rng(seed)
    labels = np.arange(n) * num_clusters // n
    features = {}
    for v in range(views):
        own = rng.integers(num_clusters, size=n)
        means, offsets = (_directions(rng, num_clusters, width) for _ in range(2))
        rows = shared * means[labels] + private * offsets[own] + NOISE * rng.normal(size=(n, width))
        turned = fit_pca(rows, common_width([rows], width))
        features[f"view{v}"] = apply_pca({**turned, "scale": np.ones(())}, rows)
    return Dataset(features, row_ids(n), labels, "planted", "all")


def planted_embeddings(
    n: int = 1000, *, num_clusters: int = 10, width: int = 32, num_nouns: int = 200, noise: float = 0.5, seed: int = 0
) -> Dataset:
    """Embeddings of images and nouns around common random directions, as a model of images and text makes them.

    Noun i is called ``class<c>_<i>`` after the direction it is near to, c = i modulo `num_clusters`.

    Args:
      n: images, of classes as equally many as can be, in random order. num_clusters: directions, 1 to `n`.
      width: of the embeddings. num_nouns: at least 1. noise: deviation from a direction, relative to it. seed: at
        least 0.

    Raises:
      UserError: a number out of its range.
    """
    if not (1 <= num_clusters <= n and min(width, num_nouns) >= 1 and min(noise, seed) >= 0):
        given = f"n={n}, num_clusters={num_clusters}, width={width}, num_nouns={num_nouns}, noise={noise}, seed={seed}"
        raise UserError(f"planted embeddings need 1 to n clusters, positive sizes and nothing below 0: {given}")
    rng = np.random.default_rng(seed)
    centers = _directions(rng, num_clusters, width)
    labels, own = rng.permutation(n) % num_clusters, np.arange(num_nouns) % num_clusters

    def around(classes: np.ndarray) -> np.ndarray:
        return unit_rows(centers[classes] + noise * _directions(rng, len(classes), width), "planted embeddings")

    vocabulary = Vocabulary([f"class{c}_{i}" for i, c in enumerate(own)], around(own))
    name = "planted embeddings"
    return Dataset({"image": around(labels)}, row_ids(n), labels, name, f"seed {seed}", vocabulary=vocabulary)


def _directions(rng: np.random.Generator, number: int, width: int) -> np.ndarray:
    rows = rng.normal(size=(number, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
