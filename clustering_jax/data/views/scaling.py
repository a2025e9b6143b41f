"""Scaling of a view by what was measured on the training rows, which new rows are scaled by as well."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

SCALINGS = ("none", "pixels", "minmax", "standard", "l2", "tfidf")


def fit_scaling(kind: str, view: np.ndarray, present: np.ndarray) -> dict[str, np.ndarray]:
    """What `apply_scaling` needs to know of the training rows.

    Args:
      kind: one of `SCALINGS`. view: [n, d] numbers, for "tfidf" counts >= 0.
      present: bool [n], the rows to measure; at least one.

    Returns:
      Float64 [d] each: "shift" and "scale" of "minmax" and "standard", the scale of constant columns 0; "idf" of
      "tfidf", ``1 + log((1 + n) / (1 + rows with the word))``; nothing for the others.

    Raises:
      ValueError: an unknown `kind`.
    """
    if kind not in SCALINGS:
        raise ValueError(f"fit_scaling: unknown kind '{kind}', known are {', '.join(SCALINGS)}")
    if kind not in ("minmax", "standard", "tfidf"):
        return {}
    rows = view if present.all() else view[present]
    if kind == "tfidf":
        # Importing it takes a second, and few runs need it.
        from sklearn.feature_extraction.text import TfidfTransformer

        return {"idf": TfidfTransformer().fit(rows).idf_.astype(np.float64)}
    low, high = (extreme.astype(np.float64) for extreme in (rows.min(0), rows.max(0)))
    if kind == "minmax":
        return {"shift": low, "scale": high - low}
    # By its extremes: rounding gives a column of .1 a deviation above 0.
    deviation = np.where(low == high, 0, rows.std(0, dtype=np.float64))
    return {"shift": rows.mean(0, dtype=np.float64), "scale": deviation}


def apply_scaling(kind: str, stats: Mapping[str, np.ndarray], view: np.ndarray) -> np.ndarray:
    """`view` scaled as the rows that `fit_scaling` measured.

    "none" leaves the values; "pixels" divides by 255; "minmax" takes the measured columns to [0, 1] (new rows
    may lie outside) and "standard" to mean 0 and deviation 1, columns that were constant to 0; "l2" takes rows to
    norm 1, those of norm below 1e-15 stay; "tfidf" multiplies by the idf, then as "l2" (scikit-learn's
    `TfidfTransformer`).

    Args:
      kind: as fitted. stats: what `fit_scaling` returned. view: [m, d] numbers.

    Returns:
      Float32 [m, d].
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
