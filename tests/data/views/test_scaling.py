"""Compares scalings with scikit-learn, on the fitted rows and on new rows."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from clustering_jax.data.views.scaling import apply_scaling, fit_scaling


class TestScaling:
    X = np.random.default_rng(1).normal(5, 3, (50, 4))
    X[:, 2] = 0.1

    @pytest.mark.parametrize(("kind", "peer"), [("minmax", MinMaxScaler), ("standard", StandardScaler)])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint8])
    def test_columns_equal_scikit_learn(self, kind, peer, dtype):
        rows, new = self.X[:40].astype(dtype), self.X[40:].astype(dtype)
        stats, fitted = fit_scaling(kind, rows, np.ones(40, bool)), peer().fit(rows.astype(np.float64))
        for x in (rows, new):
            found = apply_scaling(kind, stats, x)
            assert found.dtype == np.float32
            expected = fitted.transform(x.astype(np.float64))
            np.testing.assert_allclose(np.delete(found, 2, 1), np.delete(expected, 2, 1), atol=1e-6)

    @pytest.mark.parametrize("kind", ["minmax", "standard"])
    def test_constant_columns_are_zero_and_new_rows_too(self, kind):
        stats = fit_scaling(kind, self.X, np.ones(50, bool))
        assert (apply_scaling(kind, stats, self.X)[:, 2] == 0).all()
        assert (apply_scaling(kind, stats, self.X + 1e6)[:, 2] == 0).all()

    def test_minmax_reaches_exactly_0_and_1(self):
        found = np.delete(apply_scaling("minmax", fit_scaling("minmax", self.X, np.ones(50, bool)), self.X), 2, 1)
        assert (found.min(0) == 0).all() and (found.max(0) == 1).all()

    def test_large_offsets_do_not_cancel(self):
        x = (1.7e9 + np.arange(10.0))[:, None]
        found = apply_scaling("minmax", fit_scaling("minmax", x, np.ones(10, bool)), x)
        np.testing.assert_allclose(found[:, 0], np.arange(10) / 9, rtol=1e-6)

    def test_l2_scales_rows_to_norm_1(self):
        x = np.array([[3, 4], [0, 0], [-1e-9, 0]])
        np.testing.assert_allclose(apply_scaling("l2", {}, x), [[0.6, 0.8], [0, 0], [-1, 0]], rtol=1e-6)

    def test_pixels_and_none(self):
        x = np.array([[0, 51, 255]], np.uint8)
        np.testing.assert_allclose(apply_scaling("pixels", {}, x), [[0, 0.2, 1]])
        np.testing.assert_array_equal(apply_scaling("none", {}, x), [[0, 51, 255]])

    def test_tfidf_equals_scikit_learn_also_on_new_rows(self):
        x = np.random.default_rng(2).poisson(0.5, (30, 8))
        peer, stats = TfidfTransformer().fit(x[:20]), fit_scaling("tfidf", x[:20], np.ones(20, bool))
        for rows in (x[:20], x[20:]):
            np.testing.assert_allclose(apply_scaling("tfidf", stats, rows), peer.transform(rows).toarray(), atol=1e-6)

    @pytest.mark.parametrize("kind", ["minmax", "standard", "tfidf"])
    def test_missing_rows_have_no_effect(self, kind):
        x, present = np.abs(self.X), np.arange(50) % 3 > 0
        spoilt = np.where(present[:, None], x, 1e9)
        found, expected = fit_scaling(kind, spoilt, present), fit_scaling(kind, x[present], present[present])
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])

    def test_unknown_kind(self):
        with pytest.raises(ValueError, match="minmx"):
            fit_scaling("minmx", self.X, np.ones(50, bool))
