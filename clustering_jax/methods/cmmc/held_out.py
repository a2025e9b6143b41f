"""Corrects assignments by out-of-fold classifiers, which did not see the rows that they classify.

A network memorises the rows that it clusters, so its views agree even where they are wrong. Classifiers of the raw
views that are trained on the assignments of other rows do not have this problem.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax, random

from clustering_jax.nn.mlp import MLP
from clustering_jax.typing import Array

FOLDS, WIDTHS, BATCH = 4, (256, 128), 256


def confident_labels(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Replaces the label of a row where its classifiers are confident of another class.

    A class is a candidate for a row if its probability is at least its mean probability over the rows that have this
    label. The row gets the most probable candidate, and keeps its label if there is no candidate.

    Args:
      labels: cluster of each row, int [n].
      probabilities: out-of-fold probabilities of the classes, [n, k].

    Returns:
      The new labels, int [n].

    References:
      Northcutt, Jiang and Chuang, Confident learning, JAIR 2021, eq. 1 and 2: rows off the diagonal of the joint.
    """
    k = probabilities.shape[1]
    own = np.eye(k, dtype=bool)[labels]
    means = np.sum(probabilities, 0, where=own) / np.maximum(own.sum(0), 1)
    sure = (probabilities >= means) & own.any(0)
    return np.where(sure.any(1), np.where(sure, probabilities, -1).argmax(1), labels)


def held_out_probabilities(
    key: Array, views: list[np.ndarray], mask: np.ndarray, labels: np.ndarray, k: int, steps: int = 1000
) -> np.ndarray:
    """Out-of-fold probabilities of the labels, from all views of a row together.

    The rows are split into four folds. For each view and fold, one classifier is trained on the other folds; the epoch
    with the smallest cross-entropy on the fold is kept. The views are combined as independent given the label: their
    odds multiply.

    Args:
      key: random key for the folds, weights and batches.
      views: rows of each view, [n, d_v].
      mask: which rows have which view, bool [n, views].
      labels: cluster of each row, int [n] below `k`.
      k: number of clusters.
      steps: steps of each training, rounded up to whole epochs.

    Returns:
      [n, k].
    """
    fold_of = np.asarray(random.permutation(random.fold_in(key, len(views)), len(labels))) % FOLDS
    frequency = np.log((np.bincount(labels, minlength=k) + 1) / (len(labels) + k))
    total = np.tile(frequency, (len(labels), 1))
    for v, x in enumerate(views):
        logits = np.asarray(_fit(random.fold_in(key, v), jnp.asarray(x), mask[:, v], labels, fold_of, k, steps))
        total += np.where(mask[:, v, None], logits - frequency, 0)
    return np.asarray(jax.nn.softmax(total, axis=1))


@partial(jax.jit, static_argnames=("k", "steps"))
def _fit(key: Array, x: Array, mask: Array, labels: Array, fold_of: Array, k: int, steps: int) -> Array:
    """Logarithms of the out-of-fold probabilities from one view, [n, k]."""
    network, tx, n = MLP((*WIDTHS, k)), optax.adam(1e-3), len(x)
    batch = min(BATCH, n)

    def loss(params: dict, rows: Array, fold: Array) -> Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(network.apply(params, x[rows]), labels[rows])
        seen = mask[rows] & (fold_of[rows] != fold)
        return jnp.sum(losses, where=seen) / jnp.maximum(seen.sum(), 1)

    def train(fold: Array) -> Array:
        def step(carry: tuple, rows: Array) -> tuple[tuple, None]:
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params, rows, fold), state)
            return (optax.apply_updates(params, updates), state), None

        def epoch(carry: tuple, number: Array) -> tuple[tuple, None]:
            now, least, best = carry
            order = random.permutation(random.fold_in(key, FOLDS + number), n)
            now = lax.scan(step, now, order[: n // batch * batch].reshape(-1, batch))[0]
            logits = jax.nn.log_softmax(jnp.asarray(network.apply(now[0], x)))
            error = -jnp.sum(jnp.take_along_axis(logits, labels[:, None], 1)[:, 0], where=mask & (fold_of == fold))
            return (now, jnp.minimum(error, least), jnp.where(error < least, logits, best)), None

        params = network.init(random.fold_in(key, fold), x[:1])
        none = (params, tx.init(params)), jnp.float32(jnp.inf), jnp.zeros((n, k))
        return lax.scan(epoch, none, jnp.arange(-(-steps * batch // n)))[0][2]

    return jnp.take_along_axis(jax.vmap(train)(jnp.arange(FOLDS)), fold_of[None, :, None], 0)[0]
