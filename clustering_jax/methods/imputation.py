"""Missing views, from the rows that are nearest in the views that both rows have.

Troyanskaya et al., Bioinformatics 2001 (KNNimpute), with views in place of columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

# Rows whose missing views are computed at a time, and rows at most that can give theirs: a sample of more rows.
BLOCK, DONORS = 1000, 10_000


def from_neighbours(views: Sequence[np.ndarray], mask: np.ndarray, neighbours: int = 10) -> list[np.ndarray]:
    """Fills each missing view of a row with the mean of its nearest rows that have the view.

    The squared distance of two rows is the mean over the views that both have, each in units of its variance. So
    neither the scale of a view nor its number of columns matters.

    Args:
      views: rows of each view, [n, d_v]; what a missing row holds does not matter.
      mask: which rows have which view, bool [n, views].
      neighbours: number of nearest rows.

    Returns:
      The views, [n, d_v]. A row that shares no view with any row that has the missing one gets the mean of it.
    """
    lacking = np.flatnonzero(~mask.all(1))
    if not len(lacking):
        return list(views)
    means = [x[present].mean(0) if present.any() else 0 for x, present in zip(views, mask.T, strict=True)]
    filled = [np.where(m[:, None], x, mean) for x, m, mean in zip(views, mask.T, means, strict=True)]
    scaled = [_scaled(x - mean, m) for x, m, mean in zip(filled, mask.T, means, strict=True)]
    donors = np.random.default_rng(0).permutation(len(mask))[:DONORS]
    for start in range(0, len(lacking), BLOCK):
        rows = lacking[start : start + BLOCK]
        distances = _distances(scaled, mask, rows, donors)
        for view, present, mean in zip(filled, mask.T, means, strict=True):
            able, missing = present[donors], ~present[rows]
            if able.any() and missing.any():
                shares = _nearest(distances[missing][:, able], neighbours)
                alone = shares.sum(1)[:, None] == 0
                view[rows[missing]] = np.where(alone, mean, shares @ view[donors[able]])
    return filled


def _scaled(x: np.ndarray, present: np.ndarray) -> np.ndarray:
    """A centred view in units of its standard deviation; missing rows are 0."""
    return x / max(np.square(x).sum() / max(present.sum(), 1), 1e-12) ** 0.5


def _distances(views: Sequence[np.ndarray], mask: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mean squared distances over the views that both rows have, [rows, others]; infinite if they share none."""
    total, count = np.zeros((len(rows), len(others))), np.zeros((len(rows), len(others)))
    for x, present in zip(views, mask.T, strict=True):
        a, b, both = x[rows], x[others], present[rows, None] & present[others]
        total += both * (np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T)
        count += both
    return np.where(count > 0, total / np.maximum(count, 1), np.inf)


def _nearest(distances: np.ndarray, neighbours: int) -> sparse.csr_array:
    """Equal shares of the nearest columns of each row, [rows, columns]; none where all distances are infinite."""
    count = min(neighbours, distances.shape[1])
    near = np.argpartition(distances, count - 1, axis=1)[:, :count]
    seen = np.isfinite(np.take_along_axis(distances, near, 1))
    shares = seen / np.maximum(seen.sum(1), 1)[:, None]
    return sparse.csr_array((shares.ravel(), (np.arange(len(near)).repeat(count), near.ravel())), distances.shape)
