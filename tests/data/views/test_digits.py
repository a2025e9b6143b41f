"""Compares the computed views of the digits with plain loops."""

import numpy as np
from sklearn.cluster import KMeans

from clustering_jax import data, metrics


class TestDigitsViews:
    def test_three_views_of_the_same_rows(self):
        found = data.load("digits_views")
        shapes = {key: view.shape for key, view in found.features.items()}
        assert shapes == {"view0": (1797, 64), "view1": (1797, 39), "view2": (1797, 32)}
        assert all(view.dtype == np.float32 and np.isfinite(view).all() for view in found.features.values())
        assert (found.labels == data.load("digits").labels).all()

    def test_fourier_magnitudes_equal_the_sums(self):
        found = data.load("digits_views").features
        image, grid = found["view0"][7].reshape(8, 8), np.mgrid[:8, :8]
        expected = []
        for u in range(8):
            for v in range(5):
                wave = np.exp(-2j * np.pi * (u * grid[0] + v * grid[1]) / 8)
                expected.append(abs((image * wave).sum()) / 8)
        np.testing.assert_allclose(found["view1"][7], expected[1:], atol=1e-6)

    def test_edges_of_one_image_one_by_one(self):
        found = data.load("digits_views").features
        image, expected = found["view0"][7].reshape(8, 8).astype(np.float64), np.zeros((2, 2, 8))
        down, right = np.gradient(image)
        for y, x in np.ndindex(8, 8):
            angle = np.degrees(np.arctan2(down[y, x], right[y, x]))
            expected[y // 4, x // 4, round(angle / 45) % 8] += np.hypot(down[y, x], right[y, x])
        np.testing.assert_allclose(found["view2"][7], expected.ravel(), atol=1e-5)

    def test_each_view_separates_the_digits(self):
        found = data.load("digits_views")
        for view in found.features.values():
            clusters = KMeans(10, n_init=1, random_state=0).fit_predict(view)
            assert metrics.accuracy(found.labels, clusters) > 0.5
