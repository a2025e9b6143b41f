"""Pseudo-labels of CMMC's third stage, from k-means."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from clustering_jax.kmeans import kmeans
from clustering_jax.losses.matching import contingency, maximum_matching
from clustering_jax.methods.imputation import from_neighbours
from clustering_jax.typing import Array


def pseudo_labels(key: Array, features: np.ndarray, mask: np.ndarray, k: int, restarts: int) -> dict[str, np.ndarray]:
    """k-means on the features of each view, with columns scaled to [0, 1].

    Args:
      key: random key.
      features: high-level features, [n, views, d].
      mask: which rows have which view, bool [n, views].
      k: number of clusters.
      restarts: restarts of each k-means.

    Returns:
      "pseudo", int32 [n, views], -1 where the view is missing.
    """
    n, views, _ = features.shape
    pseudo = np.full((n, views), -1, np.int32)
    for v in range(views):
        rows = np.flatnonzero(mask[:, v])
        x = features[rows, v] - features[rows, v].min(0)
        x = x / np.where(x.max(0) > 0, x.max(0), 1)
        # A view that is present in fewer than k rows can only give that many clusters.
        few = min(k, len(rows))
        pseudo[rows, v] = kmeans(jax.random.fold_in(key, v), jnp.asarray(x), few, restarts=restarts).labels
    return {"pseudo": pseudo}


def joint_pseudo_labels(
    key: Array, views: list[np.ndarray], mask: np.ndarray, k: int, restarts: int
) -> dict[str, np.ndarray]:
    """One k-means on all views side by side, each scaled to variance 1; nearest rows stand in for missing views.

    It keeps the clusters that only some views separate, which the contrast of views removes.

    Args:
      key: random key.
      views: rows of each view, [n, d_v].
      mask: which rows have which view, bool [n, views].
      k: number of clusters.
      restarts: restarts of the k-means.

    Returns:
      "pseudo", int32 [n, views], -1 where the view is missing.
    """
    parts = []
    for x, present in zip(from_neighbours(views, mask), mask.T[..., None], strict=True):
        x = x - x.mean(0, where=present)
        variance = np.square(x).sum(where=present) / present.sum()
        parts.append(x / variance**0.5 if variance > 0 else x)
    labels = kmeans(key, jnp.asarray(np.concatenate(parts, 1)), k, restarts=restarts).labels
    return {"pseudo": np.where(mask, np.asarray(labels)[:, None], -1).astype(np.int32)}


def named_once(pseudo: np.ndarray, clusters: np.ndarray, k: int, weights: np.ndarray) -> np.ndarray:
    """Gives pseudo-labels the numbers of the clusters that they agree with best, in all views alike.

    The labels of the reference view are matched with the clusters, and the labels of the other views with those of the
    reference view. So a cluster that is empty belongs to the same rows in each view.

    Args:
      pseudo: int [n, views], negative where the view is missing.
      clusters: int [n] in [0, k), the present clusters.
      k: number of clusters.
      weights: [views]; the view with the largest weight times its number of rows is the reference.

    Returns:
      int32 [n, views], negative where the view is missing.
    """
    reference = int(np.argmax(weights * (pseudo >= 0).sum(0)))
    labels = renamed(pseudo[:, reference], clusters, k)
    named = [labels if v == reference else renamed(rows, labels, k) for v, rows in enumerate(pseudo.T)]
    return np.stack(named, 1)


def renamed(labels: Array | np.ndarray, others: Array | np.ndarray, k: int) -> Array:
    """Renames labels so that they agree best with others, by the maximum matching of their contingency table.

    Args:
      labels: int [n] in [0, k), or negative for a row without a label.
      others: int [n], likewise.
      k: number of labels.

    Returns:
      int32 [n], negative where `labels` is.
    """
    labels = jnp.asarray(labels)
    names = maximum_matching(contingency(labels, jnp.asarray(others), k, k))
    return jnp.where(labels < 0, -1, names[labels])
