"""Compares the criteria for the number of clusters with textbook loops, and tests their rules on simple curves."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import linkage
from sklearn.metrics import adjusted_rand_score, silhouette_score

from clustering_jax.kmeans import criteria

ROWS = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
LABELS = np.stack([np.arange(60) % k for k in (2, 3, 5)])
KS = range(2, 7)


def test_silhouettes_equal_scikit_learn():
    expected = [silhouette_score(ROWS, labels) for labels in LABELS]
    np.testing.assert_allclose(criteria.silhouettes(ROWS, LABELS, seed=0), expected, atol=1e-6)


def test_a_clustering_without_a_silhouette_has_none():
    labels = np.stack([LABELS[0], np.zeros(60, int)])
    assert np.isnan(criteria.silhouettes(ROWS, labels, seed=0)).tolist() == [False, True]


def adjusted_rand_loop(a, b):
    """Computes the index in a loop over pairs of rows."""
    pairs = [(a[i] == a[j], b[i] == b[j]) for i in range(len(a)) for j in range(i)]
    both, first, second = (sum(map(test, pairs)) for test in (all, lambda p: p[0], lambda p: p[1]))
    chance = first * second / len(pairs)
    return (both - chance) / ((first + second) / 2 - chance)


def test_agreements_equal_the_textbook_loop():
    others = np.random.default_rng(1).permuted(LABELS, axis=1)
    found = criteria.agreements(LABELS, others)
    np.testing.assert_allclose(found, [adjusted_rand_loop(a, b) for a, b in zip(LABELS, others, strict=True)])
    np.testing.assert_allclose(found, [adjusted_rand_score(a, b) for a, b in zip(LABELS, others, strict=True)])
    np.testing.assert_allclose(criteria.agreements(LABELS, LABELS + 7), 1)


def test_the_reference_is_uniform_in_the_bounding_box():
    rows = np.stack([np.linspace(-3, 5, 4000), np.linspace(0, 1e-3, 4000)], 1).astype(np.float32)
    found = criteria.reference(rows, seed=0)
    assert found.shape == rows.shape and found.dtype == rows.dtype
    assert (found >= rows.min(0)).all() and (found <= rows.max(0)).all()
    width = rows.max(0) - rows.min(0)
    np.testing.assert_allclose(found.mean(0), rows.min(0) + width / 2, atol=0.02 * width.max())
    np.testing.assert_allclose(found.std(0), width / np.sqrt(12), rtol=0.02)
    assert abs(np.corrcoef(found.T)[0, 1]) < 0.05 < np.corrcoef(rows.T)[0, 1]
    assert not np.array_equal(found, criteria.reference(rows, seed=1))


def test_gaps():
    np.testing.assert_allclose(criteria.gaps(np.array([2.0, 1.0]), np.array([4.0, 4.0])), np.log([2, 4]))
    assert np.isnan(criteria.gaps(np.array([0.0]), np.array([1.0]))).all()


@pytest.mark.parametrize("sizes", [np.ones(12, int), np.arange(12) % 4 + 1], ids=["rows", "clusters"])
def test_merges_equal_scipy_ward(sizes):
    """For clusters, SciPy gets each center as often as its cluster has rows."""
    centers = np.random.default_rng(2).normal(size=(12, 3))
    expected = linkage(np.repeat(centers, sizes, axis=0), "ward")[-11:, 2][::-1]
    np.testing.assert_allclose(criteria.merges(centers, sizes), expected, rtol=1e-6)


def test_empty_clusters_merge_at_height_0():
    centers = np.array([[0.0], [9.0], [1.0], [50.0], [60.0]])
    found = criteria.merges(centers, np.array([2, 2, 2, 0, 0]))
    np.testing.assert_allclose(found[2:], 0)
    np.testing.assert_allclose(found[:2], criteria.merges(centers[:3], np.array([2, 2, 2])))


def test_jumps():
    """The five heights belong to merges that end 2, 3, 4, 5 and 6 clusters. Three large heights mean four clusters."""
    heights = np.array([16.0, 9.0, 8.0, 2.0, 1.0])
    found = criteria.jumps(heights, range(2, 6))
    np.testing.assert_allclose(found, np.log([16 / 9, 9 / 8, 4, 2]))
    assert criteria.jumps(np.zeros(5), range(2, 6)).tolist() == [0, 0, 0, 0]


NAN = float("nan")


@pytest.mark.parametrize(
    "mean, expected", [([1, 3, 2], 1), ([3, 3, 2], 0), ([NAN, 1, 2], 2), ([NAN, NAN, NAN], None)], ids=str
)
def test_peak(mean, expected):
    assert criteria.peak(np.array([mean, mean])) == expected


@pytest.mark.parametrize(
    "mean, spread, expected",
    [
        ([1, 1, 0.5], 0, 1),  # equally stable: the larger number
        ([1, 0.97, 0.5], 0.01, 0),
        ([1, 0.97, 0.5], 0.1, 1),  # within an error of .1 / sqrt(8)
        ([0.2, 0.5, 0.9], 0.01, 2),
    ],
    ids=str,
)
def test_last_stable(mean, spread, expected):
    signs = np.array([1, -1] * 4)[:, None]
    assert criteria.last_stable(np.array(mean) + spread * signs) == expected


def first_gap_loop(curves):
    for k in range(curves.shape[1] - 1):
        rises = [curve[k + 1] - curve[k] for curve in curves]
        mean = sum(rises) / len(rises)
        spread = (sum((rise - mean) ** 2 for rise in rises) / len(rises)) ** 0.5
        if mean <= spread * (1 + 1 / len(rises)) ** 0.5:
            return k
    return None


@pytest.mark.parametrize(
    "mean, spread, expected",
    [
        ([1, 2, 2.5, 2.4], 0, 2),
        ([1, 2, 2.5, 2.4], 0.24, 1),  # the rise of .5 is within .48 * sqrt(1.25)
        ([1, 2, 2.5, 2.4], 0.2, 2),
        ([3, 2, 1, 0], 0, 0),
        ([0, 1, 2, 3], 0, None),
        ([0, NAN, 2, 3], 0, None),
    ],
    ids=str,
)
def test_first_gap(mean, spread, expected):
    signs = np.outer([1, -1] * 2, [1, -1] * 2)
    curves = np.array(mean) + spread * signs
    assert criteria.first_gap(curves) == expected == first_gap_loop(curves)
    assert criteria.first_gap(curves + 7 * np.arange(4)[:, None]) == expected  # a factor common to all k has no effect
