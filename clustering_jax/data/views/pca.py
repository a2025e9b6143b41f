"""Views brought to one width by principal components, as methods need whose network all views share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clustering_jax.data.base import Dataset
from clustering_jax.data.views.dataset import multiview
from clustering_jax.errors import UserError


def common_width(views: Sequence[np.ndarray], width: int = 100) -> int:
    """The greatest width that all `views` [n_v, d_v], without their missing rows, can be given, at most `width`."""
    return min(width, *(size for view in views for size in (view.shape[1], len(view) - 1)))


def fit_pca(view: np.ndarray, width: int) -> dict[str, np.ndarray]:
    """What `apply_pca` needs to know of the training rows.

    Args:
      view: [n, d] floats, rows that have the view. width: components, 1 to min(n, d).

    Returns:
      In the view's precision: "mean" [d]; "components" [width, d], orthonormal, by falling variance, the signs fixed;
      "scale" [], what makes the mean variance of the components 1, or 1 for a constant view.
    """
    # Importing it takes a second, and few runs need it.
    from sklearn.decomposition import PCA

    fitted = PCA(width, random_state=0).fit(view)
    variance = fitted.explained_variance_.mean()
    scale = np.asarray(variance**-0.5 if variance > 0 else 1, view.dtype)
    return {"mean": fitted.mean_, "components": fitted.components_, "scale": scale}


def apply_pca(stats: Mapping[str, Any], view: np.ndarray) -> np.ndarray:
    """``scale (view - mean) components^T``, float32 [m, width] of [m, d]: one scale a view, no whitening."""
    mean, components = (np.asarray(stats[name]) for name in ("mean", "components"))
    return ((view - mean) @ components.T * stats["scale"]).astype(np.float32)


def multiview_pca(
    path: str | Path | Sequence[str | Path],
    *,
    width: int = 100,
    views: str | Sequence[str] = (),
    label_key: str = "",
    mask_key: str = "",
    scaling: str | Sequence[str] = "none",
    missing: str = "error",
    transpose: bool = False,
) -> Dataset:
    """`multiview`, each view then on its principal components: as many for all, `width` or fewer.

    Args:
      width: see `common_width`. The other arguments are those of `multiview`.

    Returns:
      The data set; `scalings` holds what new rows are projected by, see `projected`.

    Raises:
      UserError: as `multiview`, or `width` is not above 0.
    """
    if width < 1:
        raise UserError(f"width is {width}: choose 1 or more principal components")
    dataset = multiview(
        path,
        views=views,
        label_key=label_key,
        mask_key=mask_key,
        scaling=scaling,
        missing=missing,
        transpose=transpose,
    )
    return projected(dataset._replace(scalings=_with_pca(dataset, width)))


def projected(dataset: Dataset) -> Dataset:
    """`dataset` on the components that its `scalings` hold; as it is where they hold none.

    New rows: ``projected(scaled(views, scalings))``, the scalings being those of the training.
    """
    features = dict(dataset.features)
    for name, fitted in (dataset.scalings or {}).items():
        if "pca" in fitted:
            rows = apply_pca(fitted["pca"], features[name])
            features[name] = rows if "mask" not in features else _present(dataset, name, rows)
    return dataset._replace(features=features)


def _with_pca(dataset: Dataset, width: int) -> dict[str, Any]:
    """The scalings, with the components of each view as plain numbers and lists."""
    scalings = dataset.scalings or {}
    mask = dataset.features.get("mask", np.ones((dataset.num_examples, len(scalings)), bool))
    rows = {name: dataset.features[name][mask[:, v]] for v, name in enumerate(scalings)}
    few = min(rows, key=lambda name: len(rows[name]))
    if len(rows[few]) < 2:
        raise UserError(f"{dataset.name}: only one row has {few}, principal components need two: leave the view out")
    width = common_width(list(rows.values()), width)
    fitted = {name: {k: stat.tolist() for k, stat in fit_pca(view, width).items()} for name, view in rows.items()}
    return {name: {**scaling, "pca": fitted[name]} for name, scaling in scalings.items()}


def _present(dataset: Dataset, name: str, rows: np.ndarray) -> np.ndarray:
    """Zeros in the rows without the view."""
    return np.where(dataset.features["mask"][:, [int(name.removeprefix("view"))]], rows, np.float32(0))
