"""The generalisation score of a clustering: how well a linear classifier predicts it on rows that it has not seen.

It needs no labels. TURTLE's authors choose hyper-parameters by it (Gadetsky, Jiang and Brbic, ICML 2024).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

FOLDS = 10


def generalization_score(
    spaces: Sequence[np.ndarray],
    labels: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    max_rows: int = 2000,
    max_columns: int = 64,
    max_iterations: int = 100,
) -> float:
    """Mean over the spaces of the 10-fold cross-validated accuracy of a logistic regression that predicts `labels`.

    The regression has an L2 penalty with C = 1, as in the authors' code. Large data are cut down to bound the time: a
    fixed random sample of the rows, and the principal components of each space with the largest variance. The sample
    and the folds are the same in every call, so that two clusterings of the same rows are compared on equal terms.

    Args:
      spaces: features [n, d_v] of each space.
      labels: [n] integer clusters.
      mask: [n, spaces] bool, which rows each space has; None is all rows.
      max_rows: rows in the sample.
      max_columns: principal components of each space.
      max_iterations: iterations of the solver.

    Returns:
      A number in [0, 1]. One single cluster gives 0: everything predicts it, but it says nothing.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    if len(np.unique(labels)) < 2:
        return 0.0
    scores = []
    for number, space in enumerate(spaces):
        rows = (order if mask is None else order[mask[order, number]])[:max_rows]
        reduced = _principal_components(np.asarray(space[rows], np.float64), max_columns)
        scores.append(_cross_validated_accuracy(reduced, labels[rows], max_iterations))
    return float(np.mean(scores))


def _principal_components(x: np.ndarray, columns: int) -> np.ndarray:
    """The first `columns` principal components, [n, columns]; narrower features are returned unchanged."""
    if x.shape[1] <= columns:
        return x
    centered = x - x.mean(0)
    # eigh returns the eigenvalues in ascending order.
    return centered @ np.linalg.eigh(centered.T @ centered)[1][:, -columns:]


def _cross_validated_accuracy(x: np.ndarray, labels: np.ndarray, max_iterations: int) -> float:
    # Importing it takes a second, and only this score needs it.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    correct = 0
    fold = np.arange(len(labels)) % min(FOLDS, len(labels))
    # Products this small are slower with several threads. The number of iterations is a choice, not a failure.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for number in range(fold.max() + 1):
            train, test = fold != number, fold == number
            predicted = labels[train][0]
            if len(np.unique(labels[train])) > 1:
                predicted = LogisticRegression(max_iter=max_iterations).fit(x[train], labels[train]).predict(x[test])
            correct += np.sum(predicted == labels[test])
    return correct / len(labels)
