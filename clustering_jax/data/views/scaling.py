"""Scaling of views. The statistics come from the training rows, and new rows are scaled by the same ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

# Sums of the squares of larger numbers overflow float32.
LARGEST = 1e16
SCALINGS = ("none", "pixels", "minmax", "standard", "l2", "tfidf")


def fit_scaling(kind: str, view: np.ndarray, row_mask: np.ndarray) -> dict[str, np.ndarray]:
    """Computes the statistics of the training rows that `apply_scaling` needs.

    Args:
      kind: one of `SCALINGS`.
      view: [n, d] numbers; for "tfidf", counts >= 0.
      row_mask: bool [n], True in the rows that have the view; at least one.

    Returns:
      float64 [d] each: "shift" and "scale" for "minmax" and "standard", where the scale of constant columns is 0; "idf"
      for "tfidf", ``1 + log((1 + n) / (1 + rows with the word))``; empty for the others.

    Raises:
      ValueError: `kind` is unknown.
    """
    if kind not in SCALINGS:
        raise ValueError(f"fit_scaling: unknown kind '{kind}', known are {', '.join(SCALINGS)}")
    if kind not in ("minmax", "standard", "tfidf"):
        return {}
    rows = view if row_mask.all() else view[row_mask]
    if kind == "tfidf":
        # The import takes a second, and few runs need it.
        from sklearn.feature_extraction.text import TfidfTransformer

        return {"idf": TfidfTransformer().fit(rows).idf_.astype(np.float64)}
    low, high = (extreme.astype(np.float64) for extreme in (rows.min(0), rows.max(0)))
    if kind == "minmax":
        return {"shift": low, "scale": high - low}
    # Constant columns are found by their extremes: by rounding, the deviation of a column of .1 is above 0.
    deviation = np.where(low == high, 0, rows.std(0, dtype=np.float64))
    return {"shift": rows.mean(0, dtype=np.float64), "scale": deviation}


def apply_scaling(kind: str, stats: Mapping[str, np.ndarray], view: np.ndarray) -> np.ndarray:
    """Scales rows by the statistics of the training rows.

    "none" keeps the values. "pixels" divides by 255. "minmax" maps the columns of the training rows to [0, 1]; new rows
    may lie outside. "standard" gives them mean 0 and standard deviation 1. Both map columns to 0 that were constant in
    training. "l2" gives each row norm 1, except rows of norm below 1e-15, which stay. "tfidf" multiplies by the idf and
    then does as "l2", like scikit-learn's `TfidfTransformer`.

    Args:
      kind: the kind that was fitted.
      stats: what `fit_scaling` returned.
      view: [m, d] numbers.

    Returns:
      float32 [m, d].
    """
    if kind == "none":
        return np.asarray(view, np.float32)
    if kind == "pixels":
        return np.asarray(view, np.float32) / np.float32(255)
    wide = np.asarray(view, np.float64)
    if kind in ("l2", "tfidf"):
        from sklearn.preprocessing import normalize

        return normalize(wide * stats.get("idf", 1)).astype(np.float32)
    scale = np.asarray(stats["scale"])
    return np.where(scale > 0, (wide - stats["shift"]) / np.where(scale > 0, scale, 1), 0).astype(np.float32)
