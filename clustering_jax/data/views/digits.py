"""Three views of scikit-learn's digits, computed: multi-view data without a download."""

from __future__ import annotations

import numpy as np

from clustering_jax.data.base import Dataset, row_ids

DIRECTIONS = 8


def digits_views() -> Dataset:
    """1,797 handwritten digits in three views, float32, with labels.

    Returns:
      "view0": [n, 64] the pixels of 8x8, in [0, 1].
      "view1": [n, 39] magnitudes of the image's Fourier transform, which shifting leaves, the mean's left out.
      "view2": [n, 32] how strong edges of 8 directions are in each quarter.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    images = found.images / 16
    views = (images, np.abs(np.fft.rfft2(images, norm="ortho")).reshape(len(images), -1)[:, 1:], _edges(images))
    features = {f"view{v}": view.reshape(len(images), -1).astype(np.float32) for v, view in enumerate(views)}
    return Dataset(features, row_ids(len(images)), found.target.astype(np.int64), "digits_views", "all")


def _edges(images: np.ndarray) -> np.ndarray:
    """Magnitudes of the gradient by direction, summed over quarters: [n, 2, 2, directions]."""
    down, right = np.gradient(images, axis=(1, 2))
    turn = np.arctan2(down, right) / (2 * np.pi)
    direction = np.rint(turn * DIRECTIONS).astype(int) % DIRECTIONS
    strength = np.hypot(down, right)[..., None] * (direction[..., None] == np.arange(DIRECTIONS))
    return strength.reshape(-1, 2, 4, 2, 4, DIRECTIONS).sum((2, 4))
