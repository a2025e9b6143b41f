"""Principal components, which give all views the same width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clustering_jax.data.base import Dataset
from clustering_jax.errors import UserError


def common_width(views: Sequence[np.ndarray], width: int = 100) -> int:
    """Returns the largest number of components that every view allows.

    Args:
      views: [n_v, d_v] floats each, without missing rows.
      width: upper limit of the result.
    """
    return min(width, *(size for view in views for size in (view.shape[1], len(view) - 1)))


def fit_pca(view: np.ndarray, width: int) -> dict[str, np.ndarray]:
    """Fits principal components on the training rows.

    Args:
      view: [n, d] floats: the rows that have the view.
      width: number of components, 1 to min(n, d).

    Returns:
      In the precision of `view`: "mean" [d]; "components" [width, d], orthonormal, by falling variance, with fixed
      signs; "scale" [], which makes the mean variance of the components 1, or is 1 for a constant view.
    """
    # The import takes a second, and few runs need it.
    from sklearn.decomposition import PCA

    factor = safe_factor(view)
    fitted = PCA(width, random_state=0).fit(view if factor == 1 else (view * np.float64(factor)).astype(view.dtype))
    variance = fitted.explained_variance_.mean()
    scale = np.asarray(variance**-0.5 if variance > 0 else 1, view.dtype)
    if factor == 1:
        return {"mean": fitted.mean_, "components": fitted.components_, "scale": scale}
    scaled = {"mean": fitted.mean_ / np.float64(factor), "scale": scale * np.float64(factor)}
    return {"components": fitted.components_, **scaled}


def safe_factor(view: np.ndarray) -> float:
    """A power of two that brings very large or small numbers near 1, where their squares are numbers too; else 1.

    Args:
      view: [n, d] floats.
    """
    largest = float(np.abs(view).max(initial=0))
    return 1.0 if largest == 0 or 1e-12 < largest < 1e12 else 2.0 ** -round(np.log2(largest))


def apply_pca(stats: Mapping[str, Any], view: np.ndarray) -> np.ndarray:
    """Computes ``scale (view - mean) components^T``. There is one scale per view and no whitening.

    Args:
      stats: what `fit_pca` returned.
      view: [m, d] floats.

    Returns:
      float32 [m, width].
    """
    mean, components = (np.asarray(stats[name]) for name in ("mean", "components"))
    if not 1e-12 < float(stats["scale"]) < 1e12:  # beyond that, float32 has no room for the sums
        view = np.asarray(view, np.float64)
    return ((view - mean) @ components.T * stats["scale"]).astype(np.float32)


def project(dataset: Dataset) -> Dataset:
    """Projects the views on the components in their `scalings`. Views without components stay as they are."""
    features = dict(dataset.features)
    for name, fitted in (dataset.scalings or {}).items():
        if "pca" in fitted:
            rows = apply_pca(fitted["pca"], features[name])
            features[name] = rows if "mask" not in features else _zero_missing(dataset, name, rows)
    return dataset._replace(features=features)


def fit_components(dataset: Dataset, width: int) -> dict[str, Any]:
    """Fits the principal components of each view of a scaled data set.

    Args:
      dataset: the scaled training data.
      width: the most components, see `common_width`.

    Returns:
      The `scalings` of the data set, with the components of each view as "pca": numbers and lists, for JSON.

    Raises:
      UserError: fewer than two rows have one of the views.
    """
    scalings = dataset.scalings or {}
    view_mask = dataset.features.get("mask", np.ones((dataset.num_examples, len(scalings)), bool))
    rows = {name: dataset.features[name][view_mask[:, v]] for v, name in enumerate(scalings)}
    few = min(rows, key=lambda name: len(rows[name]))
    if len(rows[few]) < 2:
        raise UserError(f"{dataset.name}: only one row has {few}, principal components need two: leave the view out")
    width = common_width(list(rows.values()), width)
    fitted = {name: {k: stat.tolist() for k, stat in fit_pca(view, width).items()} for name, view in rows.items()}
    return {name: {**scaling, "pca": fitted[name]} for name, scaling in scalings.items()}


def _zero_missing(dataset: Dataset, name: str, rows: np.ndarray) -> np.ndarray:
    """Returns `rows` with zeros where the view is missing."""
    return np.where(dataset.features["mask"][:, [int(name.removeprefix("view"))]], rows, np.float32(0))
