"""Planted pairs: what is drawn and in what order, and that the shared classes are hidden or not as said."""

import numpy as np
import pytest

from clustering_jax import data
from clustering_jax.data.planted import EASY, planted
from clustering_jax.errors import UserError


def by_hand(n, shared, seed):
    """Each modality before it is turned, centred."""
    rng, y, views = np.random.default_rng(seed), np.repeat(np.arange(8), n // 8), []
    for _ in range(2):
        u = rng.integers(0, 8, n)
        means, offsets = rng.normal(size=(8, 100)), rng.normal(size=(8, 100))
        noise = rng.normal(size=(n, 100))
        rows = np.empty((n, 100))
        for i in range(n):
            mean, offset = means[y[i]], offsets[u[i]]
            rows[i] = shared * mean / np.sqrt((mean**2).sum()) + offset / np.sqrt((offset**2).sum()) + noise[i] / 10
        views.append(rows - rows.mean(0))
    return views, y


@pytest.mark.parametrize("seed", [0, 3])
def test_rows_are_those_of_the_definition_turned_to_principal_axes(seed):
    found = planted(160, shared=0.5, seed=seed)
    views, labels = by_hand(160, 0.5, seed)
    np.testing.assert_array_equal(found.labels, labels)
    for v, rows in enumerate(views):
        turned = found.features[f"view{v}"].astype(np.float64)
        assert found.features[f"view{v}"].dtype == np.float32
        np.testing.assert_allclose(turned @ turned.T, rows @ rows.T, atol=1e-5)
        covariance = turned.T @ turned
        variances = np.diag(covariance)
        np.testing.assert_allclose(covariance, np.diag(variances), atol=1e-4)
        assert (np.diff(variances) < 1e-5).all()


def test_defaults_and_easy():
    """Within the shared classes the variance is that of the private ones and the noise; EASY has stronger classes."""
    shares = []
    for found in (data.load("planted"), data.load("planted", **EASY)):
        rows, labels = found.features["view0"].astype(np.float64), found.labels
        between = np.stack([rows[labels == k].mean(0) for k in range(8)])[labels]
        shares.append((between**2).sum() / (rows**2).sum())
    assert [len(planted(n).labels) for n in (2000, 1000)] == [2000, 1000] and EASY["n"] == 1000
    assert 0.14 < shares[0] < 0.22 < shares[1] < 0.38


def test_sizes():
    found = planted(50, num_clusters=3, width=7, views=4)
    assert {k: v.shape for k, v in found.features.items()} == {f"view{v}": (50, 7) for v in range(4)}
    assert np.bincount(found.labels).tolist() == [17, 17, 16] and (np.diff(found.labels) >= 0).all()
    assert planted(16).features["view1"].shape == (16, 15)


@pytest.mark.parametrize(
    "wrong", [{"n": 1}, {"width": 0}, {"num_clusters": 0}, {"views": 0}, {"seed": -1}, {"shared": -0.1}], ids=str
)
def test_errors(wrong):
    with pytest.raises(UserError, match="planted data need"):
        planted(**{"n": 30, **wrong})
