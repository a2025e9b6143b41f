"""Inference over a whole data set in its own order, and the scores of what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import jax
import numpy as np

from clustering_jax import metrics
from clustering_jax.parallel import batch_rows, batch_sharding, data_mesh, replicate, replicated


def make_infer(function: Callable, batch_size: int) -> Callable:
    """Compiles ``(variables, batch) -> [n, ...]`` for any number of rows.

    Returns ``infer(variables, features)``: `features` is a dictionary of arrays ``[n, ...]`` (memory maps too), read
    `batch_size` rows at a time; the last batch is padded by its first row, so one compiled shape serves all. With
    several processes each reads its part of a batch, and gets all of the result.
    """
    mesh = data_mesh(batch_size)
    rows, whole = batch_sharding(mesh), replicated(mesh)
    apply = jax.jit(function, in_shardings=(whole, rows), out_shardings=rows if jax.process_count() == 1 else whole)

    def chunks(variables, features: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
        total = len(next(iter(features.values())))
        for start in range(0, total, batch_size):
            index = np.arange(start, start + batch_size)
            index[index >= total] = start
            batch = {k: batch_rows(v, index, mesh) for k, v in features.items()}
            yield apply(variables, batch), min(batch_size, total - start)

    def infer(variables, features: Mapping[str, np.ndarray]) -> np.ndarray:
        return concatenate(chunks(replicate(variables, mesh), features))

    return infer


def concatenate(parts: Iterable[tuple[jax.Array, int]]) -> np.ndarray:
    """Joins ``(padded batch, rows that count)``. All are queued before the first is waited for."""
    return np.concatenate([np.asarray(part)[:size] for part, size in list(parts)])


def label_free(probabilities: np.ndarray) -> dict[str, float]:
    """Scores that need no labels. `probabilities` [n, k]: rows on the simplex."""
    k = probabilities.shape[1]
    labels = probabilities.argmax(1)
    sizes = metrics.cluster_sizes(labels, k)
    return {
        "occupied": metrics.occupied(labels, k),
        "entropy": metrics.assignment_entropy(probabilities),
        "confidence": metrics.mean_confidence(probabilities),
        "smallest": int(sizes.min()),
        "largest": int(sizes.max()),
    }


def evaluate(probabilities: np.ndarray, labels: np.ndarray | None) -> dict[str, float]:
    """`label_free`, and where there are labels `metrics.scores`; a negative label marks a row without one."""
    result = label_free(probabilities)
    if labels is not None:
        known = np.asarray(labels) >= 0
        result |= metrics.scores(np.asarray(labels)[known], probabilities.argmax(1)[known])
    return result
