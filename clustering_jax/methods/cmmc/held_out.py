"""Errors among the assignments of rows, found by classifiers that did not see these rows.

A network that clusters its own training rows knows each of them by heart, and its views agree also where they are
wrong. Classifiers of the raw views, trained on the assignments of other rows, don't.
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
    """`labels`, but where a row is surely of another class: that one.

    The classes a row may be of are those whose probability is at least the mean that it has over the rows so labelled;
    it gets the most probable, and keeps its label where there is none.

    Args:
      labels: int [n]. probabilities: [n, k], of classifiers that the row was kept from.

    Returns:
      int [n].

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
    """What all views of a row say of its label together, from classifiers trained on the other rows: [n, k].

    Each view has one classifier for each of four parts of the rows, which it was not trained on; of its epochs the one
    of least cross-entropy there counts. Given the label, views count as independent: their odds multiply.

    Args:
      key: of the parts, weights and batches. views: [n, d] each. mask: bool [n, views]. labels: int [n] below `k`.
      steps: of each training, in whole epochs, at least one.
    """
    part = np.asarray(random.permutation(random.fold_in(key, len(views)), len(labels))) % FOLDS
    frequency = np.log((np.bincount(labels, minlength=k) + 1) / (len(labels) + k))
    total = np.tile(frequency, (len(labels), 1))
    for v, x in enumerate(views):
        logits = np.asarray(_fit(random.fold_in(key, v), jnp.asarray(x), mask[:, v], labels, part, k, steps))
        total += np.where(mask[:, v, None], logits - frequency, 0)
    return np.asarray(jax.nn.softmax(total, axis=1))


@partial(jax.jit, static_argnames=("k", "steps"))
def _fit(key: Array, x: Array, there: Array, labels: Array, part: Array, k: int, steps: int) -> Array:
    """Logarithms of the probabilities of one view's classifiers, [n, k], each row's of the one it was kept from."""
    network, tx, n = MLP((*WIDTHS, k)), optax.adam(1e-3), len(x)
    batch = min(BATCH, n)

    def loss(params: dict, rows: Array, fold: Array) -> Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(network.apply(params, x[rows]), labels[rows])
        seen = there[rows] & (part[rows] != fold)
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
            found = jax.nn.log_softmax(network.apply(now[0], x))
            error = -jnp.sum(jnp.take_along_axis(found, labels[:, None], 1)[:, 0], where=there & (part == fold))
            return (now, jnp.minimum(error, least), jnp.where(error < least, found, best)), None

        params = network.init(random.fold_in(key, fold), x[:1])
        none = (params, tx.init(params)), jnp.float32(jnp.inf), jnp.zeros((n, k))
        return lax.scan(epoch, none, jnp.arange(-(-steps * batch // n)))[0][2]

    return jnp.take_along_axis(jax.vmap(train)(jnp.arange(FOLDS)), part[None, :, None], 0)[0]
