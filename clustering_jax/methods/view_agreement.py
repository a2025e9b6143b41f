"""How well each view predicts a clustering: a score without labels that compares clusterings of the same objects.

A clustering that follows structure which the views share can be predicted from each of them; one that follows noise, or
one view alone, can't. The score is a normalised mutual information times the entropy of the sizes of the clusters, so a
clustering with few occupied clusters gains nothing.

The prediction is a ridge regression of the one-hot labels, out of fold (5 folds), on the standardised columns or their
first 200 principal components, with a penalty of the number of columns. The sample of at most 5,000 rows and the folds
depend on the number of rows alone, so clusterings of the same rows are compared on equal terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import entr

# Rows and principal components at most, and folds of the cross-validation.
ROWS, COMPONENTS, FOLDS = 5000, 200, 5


class ViewFolds(NamedTuple):
    """What the predictions from one view need besides the labels.

    Attributes:
      rows: numbers of the sampled rows that have the view, int [m].
      x: their columns, [m, d].
      solvers: for each fold, the matrix [d, m'] that makes coefficients of the labels of the m' rows outside it.
    """

    rows: np.ndarray
    x: np.ndarray
    solvers: list[np.ndarray]


def view_agreement(views: Sequence[np.ndarray], labels: np.ndarray, k: int, mask: np.ndarray | None = None) -> float:
    """Mean over the views of the normalised mutual information between the labels and their prediction from the view.

    It is multiplied by the entropy of the clusters' sizes over log k: two clusters are easier to predict than ten.

    Args:
      views: [n, d_v] rows of each view, at any scale.
      labels: int [n] clusters.
      k: number of clusters that were asked for.
      mask: bool [n, views], which rows each view has; None is all rows.

    Returns:
      A number in [0, 1]; 0 for a single cluster, 1 for k clusters of equal size that each view predicts.
    """
    return agreement(view_folds(views, mask), labels, k)


def view_folds(views: Sequence[np.ndarray], mask: np.ndarray | None = None) -> list[ViewFolds]:
    """The part of `view_agreement` that is the same for all clusterings of the same rows. Arguments as there."""
    order = np.random.default_rng(0).permutation(len(views[0]))
    found = []
    for number, view in enumerate(views):
        rows = (order if mask is None else order[mask[order, number]])[:ROWS]
        x = _components(np.asarray(view[rows], np.float64))
        fold = _fold(len(x))
        found.append(ViewFolds(rows, x, [_solver(x[fold != number]) for number in np.unique(fold)]))
    return found


def agreement(folds: Sequence[ViewFolds], labels: np.ndarray, k: int) -> float:
    """`view_agreement` from the prepared folds; they and `labels` are as in `agreements`."""
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    occupied = min(1.0, float(entr(shares).sum()) / np.log(max(k, 2)))
    return occupied * float(np.mean(agreements(folds, labels)))


def agreements(folds: Sequence[ViewFolds], labels: np.ndarray) -> list[float]:
    """The normalised mutual information between the labels and their prediction, for each view.

    Args:
      folds: from `view_folds`.
      labels: int [n] clusters.
    """
    return [_information(view, labels[view.rows]) for view in folds]


def _information(view: ViewFolds, labels: np.ndarray) -> float:
    """The normalised mutual information between labels and prediction; 0 for a single cluster."""
    from sklearn.metrics import normalized_mutual_info_score

    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        return 0.0
    return float(normalized_mutual_info_score(codes, _predicted(view, np.eye(len(classes))[codes])))


def _fold(m: int) -> np.ndarray:
    return np.arange(m) % min(FOLDS, max(m, 1))


def _components(x: np.ndarray) -> np.ndarray:
    """The standardised columns; the first principal components where there are more than `COMPONENTS`."""
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-12)
    if min(x.shape) <= COMPONENTS:
        return x
    if x.shape[0] < x.shape[1]:
        # The scores, up to signs, from the smaller matrix of the rows.
        values, vectors = np.linalg.eigh(x @ x.T)
        return vectors[:, -COMPONENTS:] * np.sqrt(np.maximum(values[-COMPONENTS:], 0))
    return x @ np.linalg.eigh(x.T @ x)[1][:, -COMPONENTS:]


def _solver(x: np.ndarray) -> np.ndarray:
    """The matrix [d, m] that makes ridge coefficients [d, k] of targets [m, k], with an intercept apart."""
    centred, penalty = x - x.mean(0), x.shape[1]
    if len(x) < x.shape[1]:
        return centred.T @ np.linalg.inv(centred @ centred.T + penalty * np.eye(len(x)))
    return np.linalg.solve(centred.T @ centred + penalty * np.eye(x.shape[1]), centred.T)


def _predicted(view: ViewFolds, targets: np.ndarray) -> np.ndarray:
    """The class of each row by the regression on the other folds, int [m]."""
    fold, predicted = _fold(len(view.x)), np.empty(len(view.x), int)
    for number, solver in enumerate(view.solvers):
        train, test = fold != number, fold == number
        centred = view.x[test] - view.x[train].mean(0)
        predicted[test] = (targets[train].mean(0) + centred @ (solver @ targets[train])).argmax(1)
    return predicted
