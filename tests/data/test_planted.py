"""Planted pairs and embeddings: which numbers are drawn in which order, and how well the classes are hidden."""

import numpy as np
import pytest

from clustering_jax import data
from clustering_jax.data.planted import EASY, planted, planted_embeddings
from clustering_jax.errors import UserError


def by_hand(n, shared, seed):
    """Each modality before the rotation, centred."""
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
def test_rows_equal_the_definition_rotated_to_principal_axes(seed):
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
    """Within the shared classes, the variance is that of private classes and noise. EASY has stronger classes."""
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


# --- Embeddings


def test_embeddings_equal_the_definition():
    found = data.load("planted_embeddings", n=23, num_clusters=4, width=6, num_nouns=9, noise=0.4, seed=3)
    rng = np.random.default_rng(3)
    centers = unit(rng.normal(size=(4, 6)))
    labels, own = rng.permutation(23) % 4, np.arange(9) % 4
    nouns, image = (unit(centers[c] + 0.4 * unit(rng.normal(size=(len(c), 6)))) for c in (own, labels))
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.features["image"], image, atol=1e-6)
    np.testing.assert_allclose(found.vocabulary.embeddings, nouns, atol=1e-6)
    assert found.features["image"].dtype == found.vocabulary.embeddings.dtype == np.float32
    assert found.vocabulary.words[:5] == ["class0_0", "class1_1", "class2_2", "class3_3", "class0_4"]
    assert sorted(np.bincount(found.labels)) == [5, 6, 6, 6] and found.num_examples == 23


def test_rows_with_less_noise_are_nearer_to_the_nouns_of_their_class():
    shares = []
    for noise in (0.0, 0.5, 3.0):
        found = planted_embeddings(200, noise=noise)
        nearest = (found.features["image"] @ found.vocabulary.embeddings.T).argmax(1)
        shares.append((nearest % 10 == found.labels).mean())
    assert shares[:2] == [1, 1] and 0.1 < shares[2] < 0.8


@pytest.mark.parametrize(
    "wrong",
    [{"n": 0}, {"num_clusters": 31}, {"num_clusters": 0}, {"width": 0}, {"num_nouns": 0}, {"noise": -1}, {"seed": -1}],
    ids=str,
)
def test_errors_of_embeddings(wrong):
    with pytest.raises(UserError, match="planted embeddings need"):
        planted_embeddings(**{"n": 30, **wrong})


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
