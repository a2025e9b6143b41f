"""Three views computed from scikit-learn's digits: multi-view data without a download."""

from __future__ import annotations

import numpy as np

from clustering_jax.data.base import Dataset, row_ids

DIRECTIONS = 8


def digits_views() -> Dataset:
    """Computes three views of 1,797 handwritten digits with labels.

    Returns:
      Three float32 features. "view0" [n, 64]: the 8x8 pixels, in [0, 1]. "view1" [n, 39]: the magnitudes of the image's
      Fourier transform without the mean; a shift of the image does not change them. "view2" [n, 32]: the strength of
      edges in 8 directions in each quarter of the image.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images / 16
    views = (images, np.abs(np.fft.rfft2(images, norm="ortho")).reshape(len(images), -1)[:, 1:], _edges(images))
    features = {f"view{v}": view.reshape(len(images), -1).astype(np.float32) for v, view in enumerate(views)}
    return Dataset(features, row_ids(len(images)), bunch.target.astype(np.int64), "digits_views", "all")


def _edges(images: np.ndarray) -> np.ndarray:
    """Returns the magnitudes of the gradient by direction, summed over the quarters: [n, 2, 2, directions]."""
    down, right = np.gradient(images, axis=(1, 2))
    turn = np.arctan2(down, right) / (2 * np.pi)
    direction = np.rint(turn * DIRECTIONS).astype(int) % DIRECTIONS
    strength = np.hypot(down, right)[..., None] * (direction[..., None] == np.arange(DIRECTIONS))
    return strength.reshape(-1, 2, 4, 2, 4, DIRECTIONS).sum((2, 4))
