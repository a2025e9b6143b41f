"""Generated data with known classes: multi-view data whose views share classes, and embeddings with nouns."""

from __future__ import annotations

import numpy as np

from clustering_jax.data.base import Dataset, Vocabulary, row_ids
from clustering_jax.data.embeddings import unit_rows
from clustering_jax.data.views.pca import apply_pca, common_width, fit_pca
from clustering_jax.errors import UserError

NOISE = 0.1
# On these data, k-means finds the shared classes. On the default data it finds the private ones (accuracy .15).
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
    """Generates views ``shared M[y] + private P[u] + noise``, each rotated to its principal axes.

    The classes y are shared by all views; they are sorted, and their sizes differ by at most 1. The classes u are
    private to a view, uniform and independent. The rows of M and P are random directions, different in each view. The
    noise has standard deviation .1.

    Args:
      n: number of rows, at least 2.
      shared: strength of the directions of the shared classes, at least 0.
      private: strength of the directions of the private classes, at least 0.
      num_clusters: number of shared classes, and of private classes in each view; 1 to `n`.
      width: columns of each view, at least 1. There are n - 1 columns if that is fewer.
      views: number of views, at least 1.
      seed: at least 0.

    Returns:
      Features "view0", "view1", ..., float32 [n, width]. The labels are y.

    Raises:
      UserError: a number is out of range.
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
        fitted = fit_pca(rows, common_width([rows], width))
        features[f"view{v}"] = apply_pca({**fitted, "scale": np.ones(())}, rows)
    return Dataset(features, row_ids(n), labels, "planted", "all")


def planted_embeddings(
    n: int = 1000, *, num_clusters: int = 10, width: int = 32, num_nouns: int = 200, noise: float = 0.5, seed: int = 0
) -> Dataset:
    """Generates embeddings of images and nouns around common random directions, like a model of images and text.

    The name of noun i is ``class<c>_<i>``, where c = i modulo `num_clusters` is its direction.

    Args:
      n: number of images. They are in random order, and the class sizes differ by at most 1.
      num_clusters: number of directions, 1 to `n`.
      width: columns of the embeddings, at least 1.
      num_nouns: number of nouns, at least 1.
      noise: norm of the deviation from a direction, relative to the direction, at least 0.
      seed: at least 0.

    Returns:
      Features ``{"image": float32 [n, width]}`` whose rows have norm 1, labels, and the vocabulary of the nouns.

    Raises:
      UserError: a number is out of range.
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
