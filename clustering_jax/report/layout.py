"""Projections of an embedding to two dimensions, for the map."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from clustering_jax.errors import UserError, nearest
from clustering_jax.report.content import Content, sample

MAPS = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
LARGEST = {"pca": 50_000, "tsne": 5_000, "umap": 20_000}  # number of rows, of which more are drawn at random
SEED = 0


class Points(NamedTuple):
    """The map.

    Attributes:
      rows: indices of the rows on the map, int [m], ascending.
      places: their coordinates [m, 2].
    """

    rows: np.ndarray
    places: np.ndarray


def points_of(content: Content, kind: str) -> Points | None:
    """Computes the map of a run.

    Args:
      content: the content of the report.
      kind: the method, a key of MAPS.

    Returns:
      The map; None if there is no embedding, or fewer than four rows.
    """
    if content.rows is None or content.embedding is None or len(content.rows) < 4:
        return None
    part = sample(len(content.rows), LARGEST[kind])
    return Points(content.rows[part], flat(content.embedding[part], kind))


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

    with np.errstate(invalid="ignore"):  # the variance of equal rows is 0
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


def separated(positions: np.ndarray, size: tuple[float, float], distance: float) -> np.ndarray:
    """Moves positions [k, 2] that are closer than `distance` apart, so that labels there do not overlap."""
    # The noise gives a direction to two positions that are equal.
    positions = positions + np.random.default_rng(0).normal(0, 0.01, positions.shape)
    for _ in range(60):
        gap = positions[:, None] - positions
        length = np.sqrt((gap**2).sum(2)) + np.eye(len(positions)) * distance
        push = np.maximum(distance - length, 0)[..., None] * gap / length[..., None]
        if not push.any():
            break
        positions = positions + push.sum(1) / 3
    return np.clip(positions, 10, np.array(size) - 10)
