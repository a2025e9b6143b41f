"""The preparation of DXMC and TAC: nouns that separate the images, and a counterpart in text for each image.

All functions are pure. They take arrays whose rows have norm 1 and compute on the device in blocks.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from clustering_jax.kmeans import kmeans
from clustering_jax.kmeans.row_blocks import Rows, unit_rows
from clustering_jax.losses import normalize
from clustering_jax.typing import Array, Float

BLOCK = 2048
SMOOTHING = 1e-3


def semantic_centers(key: Array, image: Float[Array, "n d"], count: int, *, restarts: int = 10) -> Array:
    """Centres of the images by spherical k-means (TAC, section 3.1).

    Args:
      key: random key.
      image: embeddings of the images, with norm 1.
      count: number of centres.
      restarts: restarts of the k-means.

    Returns:
      [count, d] with norm 1: the mean of the images of each cluster. A cluster without images, which occurs with fewer
      than `count` distinct rows, keeps the centre of the k-means.
    """
    result = kmeans(key, image, count, restarts=restarts, max_iter=300, spherical=True)
    sums = jnp.zeros_like(result.centers).at[result.labels].add(image.astype(result.centers.dtype))
    occupied = jnp.zeros(count, bool).at[result.labels].set(True)
    return jnp.where(occupied[:, None], normalize(sums), normalize(result.centers))


def select_nouns(centers: Float[Array, "m d"], nouns: Float[Array, "n d"], per_center: int) -> np.ndarray:
    """Selects the nouns with the most certain centre.

    A noun belongs to the centre with the largest cosine. Its certainty is the probability of this centre in a softmax
    over the centres.

    Args:
      centers: see `semantic_centers`.
      nouns: embeddings of the nouns, with norm 1.
      per_center: number of nouns to keep for each centre. Of equal nouns the first is kept.

    Returns:
      Row numbers of the nouns, int [kept], sorted by centre and then by certainty. A centre may have no nouns.
    """
    own, certainty = (np.asarray(x) for x in _nearest_center(centers, nouns))
    order = np.lexsort((-certainty, own))
    first = np.searchsorted(own[order], own[order])
    return order[np.arange(len(order)) - first < per_center]


@jax.jit
def _nearest_center(centers: Array, nouns: Array) -> tuple[Array, Array]:
    """The centre of each noun, int32 [n], and its probability, [n]."""

    def step(carry: None, rows: Array, index: Array) -> tuple[None, tuple[Array, Array]]:
        similarity = jnp.einsum("bd,md->bm", rows, centers, precision="highest")
        # The largest value of the softmax is where the similarity is largest.
        return carry, (similarity.argmax(1), jnp.exp(similarity.max(1) - jax.nn.logsumexp(similarity, axis=1)))

    rows = _rows(nouns)
    own, certainty = rows.fold(step, None)[1]
    return rows.joined(own), rows.joined(certainty)


@partial(jax.jit, static_argnames="temperature")
def retrieve(image: Float[Array, "n d"], nouns: Float[Array, "kept d"], *, temperature: float = 0.005) -> Array:
    """The counterpart of each image in text: the mean of the nouns, weighted by `noun_weights`.

    Args:
      image: embeddings of the images, with norm 1.
      nouns: embeddings of the kept nouns, with norm 1.
      temperature: temperature of the softmax.

    Returns:
      [n, d] with norm 1.
    """

    def step(carry: None, rows: Array, index: Array) -> tuple[None, Array]:
        weights = noun_weights(rows, nouns, temperature)
        return carry, normalize(jnp.matmul(weights, nouns, precision="highest"))

    rows = _rows(image)
    return rows.joined(rows.fold(step, None)[1])


def noun_weights(image: Float[Array, "n d"], nouns: Float[Array, "kept d"], temperature: float) -> Array:
    """The softmax over the nouns of their cosines with each image, [n, kept]."""
    return jax.nn.softmax(jnp.einsum("bd,md->bm", image, nouns, precision="highest") / temperature, axis=1)


@partial(jax.jit, static_argnames=("k", "temperature"))
def _noun_sums(image: Array, nouns: Array, labels: Array, k: int, temperature: float) -> Array:
    """`noun_weights` summed over the images of each cluster, [k, kept]."""

    def step(sums: Array, rows: Array, index: Array) -> tuple[Array, None]:
        weights = jnp.where(index[:, None] >= 0, noun_weights(rows, nouns, temperature), 0)
        one_hot = jax.nn.one_hot(labels[index], k, dtype=weights.dtype)
        return sums + jnp.matmul(one_hot.T, weights, precision="highest"), None

    return _rows(image).fold(step, jnp.zeros((k, len(nouns)), jnp.float32))[0]


def characteristic_nouns(
    image: Array, nouns: Array, labels: np.ndarray, k: int, *, count: int = 5, temperature: float = 0.005
) -> list[list[int]]:
    """The nouns that are more probable in a cluster than overall.

    `SMOOTHING` is added to both probabilities. Without it, a single image would decide on nouns that are rare
    everywhere.

    Args:
      image: embeddings of the images, with norm 1.
      nouns: embeddings of the kept nouns, with norm 1.
      labels: cluster of each image, int [n].
      k: number of clusters.
      count: largest number of nouns for each cluster.
      temperature: temperature of the softmax.

    Returns:
      Row numbers of the nouns of each cluster, sorted by the ratio of the two probabilities, the largest first. An
      empty cluster has none.
    """
    sums = np.asarray(_noun_sums(image, nouns, jnp.asarray(labels), k, temperature), np.float64)
    sizes = np.bincount(labels, minlength=k)
    inside, overall = sums / np.maximum(sizes, 1)[:, None], sums.sum(0) / len(image)
    ratio = (inside + SMOOTHING) / (overall + SMOOTHING)
    order = np.argsort(-ratio, axis=1, kind="stable")[:, :count]
    return [[int(i) for i in row if ratio[c, i] > 1] for c, row in enumerate(order)]


def _rows(x: Array) -> Rows:
    return unit_rows(x, min(BLOCK, len(x)))
