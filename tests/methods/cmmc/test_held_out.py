"""Compares the correction of labels by out-of-fold classifiers with a loop, and corrects planted errors."""

import jax
import numpy as np
import pytest

from clustering_jax.methods.cmmc.held_out import FOLDS, confident_labels, held_out_probabilities

KEY = jax.random.key(0)


def looped(labels, probabilities):
    """The rule as a loop over rows."""
    means = [
        probabilities[labels == c, c].mean() if (labels == c).any() else np.inf for c in range(len(probabilities.T))
    ]
    found = []
    for label, row in zip(labels, probabilities, strict=True):
        sure = [c for c, p in enumerate(row) if p >= means[c]]
        found.append(max(sure, key=lambda c: row[c]) if sure else label)
    return found


@pytest.mark.parametrize("k", [3, 5, 12])
def test_confident_labels_equal_the_loop(k):
    rng = np.random.default_rng(k)
    labels = rng.integers(k - 1, size=200)  # the last class has no row before and after
    probabilities = rng.dirichlet(np.full(k, 0.3), 200)
    found = confident_labels(labels, probabilities)
    np.testing.assert_array_equal(found, looped(labels, probabilities))
    assert (found != labels).any() and found.max() < k - 1


def test_labels_are_unchanged_without_confident_predictions():
    labels, probabilities = np.array([0, 0, 1, 1]), np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.6, 0.4]])
    np.testing.assert_array_equal(confident_labels(labels, probabilities), labels)


def clusters(n=600, k=3):
    """Two views with separate clusters, and labels of which one in twenty is wrong."""
    rng = np.random.default_rng(1)
    labels = rng.integers(k, size=n)
    views = [(rng.normal(size=(k, d))[labels] * 3 + rng.normal(size=(n, d))).astype(np.float32) for d in (6, 9)]
    wrong = rng.permutation(n)[: n // 20]
    given = labels.copy()
    given[wrong] = (labels[wrong] + 1) % k
    return labels, given, views


@pytest.mark.long
def test_planted_errors_are_corrected():
    labels, given, views = clusters()
    mask = np.ones((len(labels), 2), bool)
    mask[:100, 0] = mask[100:200, 1] = False
    views[0][:100] = views[1][100:200] = 1e3
    found = held_out_probabilities(KEY, views, mask, given, 3, steps=100)
    assert found.shape == (600, 3) and (found.argmax(1) == labels).mean() > 0.99
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    mended = confident_labels(given, found)
    assert (given == labels).mean() == 0.95 and (mended == labels).mean() > 0.99


@pytest.mark.long
def test_the_own_label_of_a_row_has_no_influence():
    """Classifiers can only memorise labels of noise."""
    rng = np.random.default_rng(2)
    labels, views = rng.integers(2, size=40 * FOLDS), [rng.normal(size=(40 * FOLDS, 50)).astype(np.float32)]
    found = held_out_probabilities(KEY, views, np.ones((len(labels), 1), bool), labels, 2, steps=100)
    assert (found.argmax(1) == labels).mean() < 0.65
