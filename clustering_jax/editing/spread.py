"""Spreads a few labels over the rows: what they say of whole clusters, and of the rows nearby."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from sklearn.neighbors import kneighbors_graph

# Labelled rows that the clustering itself counts for in each cluster, and rows without a label that a label counts for.
PRIOR, WEIGHT = 4.0, 10.0
# Part of a row's belief that its neighbours have, and number of times that beliefs are passed on.
ALPHA, ROUNDS = 0.9, 40


def spread(
    probabilities: np.ndarray, clusters: np.ndarray, rows: np.ndarray, targets: np.ndarray, graph: sp.csr_array
) -> np.ndarray:
    """The target of each row, given those of a few.

    A cluster counts as `PRIOR` rows that are right, to which its labelled rows are added: the cluster's rows then
    believe in a mixture of targets. Where its target went to a class that has labelled rows elsewhere only, its own
    labelled rows count alone. These beliefs are spread over the graph of the nearest rows (Zhou et al., Learning with
    Local and Global Consistency, NIPS 2003).

    Args:
      probabilities: soft assignments [n, k].
      clusters: target of each row before, int [n]; -1 for none.
      rows: numbers of the labelled rows, int [m].
      targets: their targets, int [m].
      graph: nearest rows of each row, see `nearest_rows`.

    Returns:
      int [n].
    """
    k = probabilities.shape[1]
    labelled, inside = np.zeros((k, k)), clusters[rows] >= 0
    np.add.at(labelled, (clusters[rows[inside]], targets[inside]), 1)
    strange = np.isin(np.arange(k), targets) & (np.diag(labelled) == 0) & (labelled.sum(1) > 0)
    counts = labelled + PRIOR * np.diag(1.0 - strange)
    beliefs = probabilities @ (counts / counts.sum(1, keepdims=True))
    beliefs[rows] = WEIGHT * np.eye(k)[targets]
    passed = beliefs
    for _ in range(ROUNDS):
        passed = ALPHA * (graph @ passed) + (1 - ALPHA) * beliefs
    passed[rows] = beliefs[rows]
    return passed.argmax(1)


def nearest_rows(embedding: np.ndarray, count: int) -> sp.csr_array:
    """The symmetric, normalised graph of the nearest rows of each row, [n, n].

    Args:
      embedding: [n, d] of norm 1.
      count: number of nearest rows; 0 links no rows.
    """
    if not count:
        return sp.csr_array((len(embedding), len(embedding)))
    graph = kneighbors_graph(embedding, min(count, len(embedding) - 1), include_self=False)
    graph = sp.csr_array(graph.maximum(graph.T))
    scale = sp.diags_array(1 / np.sqrt(graph.sum(1)))
    return sp.csr_array(scale @ graph @ scale)
