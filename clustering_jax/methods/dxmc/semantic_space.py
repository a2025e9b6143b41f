"""What DXMC and TAC do before training: nouns that tell the images apart, and each image's counterpart in text.

Everything is a pure function of arrays whose rows have norm 1, computed on the device in blocks.
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
    """Spherical k-means of the images: [count, d], each the mean of its members at norm 1 (TAC, section 3.1).

    A cluster without members, as with fewer than `count` distinct rows, keeps the centre that k-means gave it.
    """
    found = kmeans(key, image, count, restarts=restarts, max_iter=300, spherical=True)
    sums = jnp.zeros_like(found.centers).at[found.labels].add(image.astype(found.centers.dtype))
    occupied = jnp.zeros(count, bool).at[found.labels].set(True)
    return jnp.where(occupied[:, None], normalize(sums), normalize(found.centers))


def select_nouns(centers: Float[Array, "m d"], nouns: Float[Array, "n d"], per_center: int) -> np.ndarray:
    """The nouns that are most certain of their centre, int [kept], by centre and then by certainty.

    A noun belongs to the centre of greatest cosine, with the probability that a softmax over the CENTRES gives it; of
    each centre's nouns the `per_center` most probable are kept, of equal ones the first. Centres without nouns have
    none.
    """
    own, certainty = (np.asarray(x) for x in _nearest_center(centers, nouns))
    order = np.lexsort((-certainty, own))
    first = np.searchsorted(own[order], own[order])
    return order[np.arange(len(order)) - first < per_center]


@jax.jit
def _nearest_center(centers: Array, nouns: Array) -> tuple[Array, Array]:
    """Of each noun, int32 [n] and [n]: its centre and the probability of it."""

    def step(carry: None, rows: Array, index: Array) -> tuple[None, tuple[Array, Array]]:
        similarity = jnp.einsum("bd,md->bm", rows, centers, precision="highest")
        # The softmax's largest value; its argument is that of the similarity.
        return carry, (similarity.argmax(1), jnp.exp(similarity.max(1) - jax.nn.logsumexp(similarity, axis=1)))

    rows = _rows(nouns)
    own, certainty = rows.fold(step, None)[1]
    return rows.joined(own), rows.joined(certainty)


@partial(jax.jit, static_argnames="temperature")
def retrieve(image: Float[Array, "n d"], nouns: Float[Array, "kept d"], *, temperature: float = 0.005) -> Array:
    """The text counterpart of each image, [n, d] at norm 1: the nouns' mean, weighted by a softmax of their cosines."""

    def step(carry: None, rows: Array, index: Array) -> tuple[None, Array]:
        weights = noun_weights(rows, nouns, temperature)
        return carry, normalize(jnp.matmul(weights, nouns, precision="highest"))

    rows = _rows(image)
    return rows.joined(rows.fold(step, None)[1])


def noun_weights(image: Float[Array, "n d"], nouns: Float[Array, "kept d"], temperature: float) -> Array:
    """How likely each noun is for each image: softmax of the cosines over the nouns, [n, kept]."""
    return jax.nn.softmax(jnp.einsum("bd,md->bm", image, nouns, precision="highest") / temperature, axis=1)


@partial(jax.jit, static_argnames=("k", "temperature"))
def _noun_sums(image: Array, nouns: Array, labels: Array, k: int, temperature: float) -> Array:
    """[k, kept]: `noun_weights` summed over the images of each cluster."""

    def step(sums: Array, rows: Array, index: Array) -> tuple[Array, None]:
        weights = jnp.where(index[:, None] >= 0, noun_weights(rows, nouns, temperature), 0)
        member = jax.nn.one_hot(labels[index], k, dtype=weights.dtype)
        return sums + jnp.matmul(member.T, weights, precision="highest"), None

    return _rows(image).fold(step, jnp.zeros((k, len(nouns)), jnp.float32))[0]


def characteristic_nouns(
    image: Array, nouns: Array, labels: np.ndarray, k: int, *, count: int = 5, temperature: float = 0.005
) -> list[list[int]]:
    """Of each cluster the nouns that are likelier in it than overall, by the ratio, most first; none if it is empty.

    `SMOOTHING` is added to both probabilities, or a single image would decide about nouns that are rare everywhere.
    """
    sums = np.asarray(_noun_sums(image, nouns, jnp.asarray(labels), k, temperature), np.float64)
    sizes = np.bincount(labels, minlength=k)
    inside, overall = sums / np.maximum(sizes, 1)[:, None], sums.sum(0) / len(image)
    ratio = (inside + SMOOTHING) / (overall + SMOOTHING)
    order = np.argsort(-ratio, axis=1, kind="stable")[:, :count]
    return [[int(i) for i in row if ratio[c, i] > 1] for c, row in enumerate(order)]


def _rows(x: Array) -> Rows:
    return unit_rows(x, min(BLOCK, len(x)))
