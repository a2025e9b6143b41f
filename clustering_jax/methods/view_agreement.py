"""How well each view predicts a clustering: a score without labels that compares clusterings of the same objects.

A clustering that follows structure which the views share can be predicted from each of them; one that follows noise, or
one view alone, can't. The score is a mutual information, so a clustering with few occupied clusters gains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Rows and principal components at most, and folds of the cross-validation.
ROWS, COMPONENTS, FOLDS = 5000, 200, 5


def view_agreement(views: Sequence[np.ndarray], labels: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean over the views of the normalised mutual information between the labels and their prediction from the view.

    The prediction is a ridge regression of the one-hot labels, out of fold (5 folds), on the standardised columns or
    their first 200 principal components. The sample of at most 5,000 rows and the folds depend on the number of rows
    alone, so clusterings of the same rows are compared on equal terms.

    Args:
      views: [n, d_v] rows of each view, at any scale.
      labels: int [n] clusters.
      mask: bool [n, views], which rows each view has; None is all rows.

    Returns:
      A number in [0, 1]; 0 for a single cluster.
    """
    from sklearn.metrics import normalized_mutual_info_score

    order = np.random.default_rng(0).permutation(len(labels))
    values = []
    for number, view in enumerate(views):
        rows = (order if mask is None else order[mask[order, number]])[:ROWS]
        if len(np.unique(labels[rows])) < 2:
            return 0.0
        predicted = _out_of_fold(_components(np.asarray(view[rows], np.float64)), labels[rows])
        values.append(normalized_mutual_info_score(labels[rows], predicted))
    return float(np.mean(values))


def _components(x: np.ndarray) -> np.ndarray:
    """The standardised columns; the first principal components where there are more than `COMPONENTS`."""
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-12)
    if min(x.shape) <= COMPONENTS:
        return x
    return x @ np.linalg.eigh(x.T @ x)[1][:, -COMPONENTS:]


def _out_of_fold(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The label of each row by ridge regression on the other folds; the penalty is the number of columns."""
    from sklearn.linear_model import Ridge

    classes, codes = np.unique(labels, return_inverse=True)
    targets, fold = np.eye(len(classes))[codes], np.arange(len(x)) % min(FOLDS, len(x))
    predicted = np.empty(len(x), int)
    for number in range(fold.max() + 1):
        train, test = fold != number, fold == number
        predicted[test] = Ridge(alpha=x.shape[1]).fit(x[train], targets[train]).predict(x[test]).argmax(1)
    return predicted
