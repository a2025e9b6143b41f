"""Projections of an embedding to two dimensions, for the map."""

from __future__ import annotations

import warnings

import numpy as np

from clustering_jax.errors import UserError, nearest

MAPS = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
SEED = 0


def check(kind: str) -> None:
    """Raises UserError if `kind` is not in MAPS or needs a package that is not installed."""
    if kind not in MAPS:
        raise UserError(f"--map={kind} is unknown{nearest(kind, MAPS)}")
    if kind == "umap":
        _umap_class()


def flat(rows: np.ndarray, kind: str) -> np.ndarray:
    """Projects rows to two dimensions.

    Args:
      rows: the embedding [m, d], with at least four rows.
      kind: the method, a key of MAPS.

    Returns:
      The points [m, 2].
    """
    rows = np.asarray(rows, np.float64)
    if rows.shape[1] < 2:
        return np.concatenate([rows, np.zeros((len(rows), 2 - rows.shape[1]))], 1)
    return {"pca": _pca, "tsne": _tsne, "umap": _umap}[kind](rows)


def _pca(rows: np.ndarray) -> np.ndarray:
    from sklearn.decomposition import PCA

    return PCA(2, random_state=SEED).fit_transform(rows)


def _tsne(rows: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE

    return TSNE(2, init="pca", perplexity=min(30.0, (len(rows) - 1) / 3), random_state=SEED).fit_transform(rows)


def _umap(rows: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # UMAP warns that it is slower with a seed.
        return _umap_class()(n_neighbors=min(15, len(rows) - 1), random_state=SEED).fit_transform(rows)


def _umap_class():
    try:
        from umap import UMAP
    except ImportError as error:
        raise UserError("--map=umap needs umap-learn: pip install 'clustering_jax[umap]'") from error
    return UMAP
