"""The noise of examples is normal, independent, and depends only on the key and the example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from clustering_jax.nn.noise import example_normal

N, SHAPE = 4000, (3, 20)
DRAWN = np.asarray(example_normal(jax.random.key(0), jnp.arange(N), SHAPE), np.float64)
# More than four standard errors of a mean of this many numbers.
LIMIT = 4.5 / np.sqrt(DRAWN.size)


def test_noise_is_standard_normal():
    assert np.isfinite(DRAWN).all() and np.abs(DRAWN).max() < 5.5
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((DRAWN**power).mean() - moment) < LIMIT * np.sqrt(variance)
    assert stats.kstest(DRAWN.reshape(-1)[:50_000], "norm").pvalue > 1e-3


@pytest.mark.parametrize("axes", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (7, 0, 3), (1, 1, 1)])
def test_neighbours_in_any_direction_are_uncorrelated(axes):
    other = np.roll(DRAWN, axes, (0, 1, 2))
    assert abs((DRAWN * other).mean()) < LIMIT
    assert abs((DRAWN**2 * other**2).mean() - 1) < LIMIT * np.sqrt(8)


def test_other_keys_are_independent():
    other = np.asarray(example_normal(jax.random.key(1), jnp.arange(N), SHAPE))
    assert abs((DRAWN * other).mean()) < LIMIT and not np.any(DRAWN[0] == other[0])


@pytest.mark.long
def test_an_example_has_the_same_noise_in_any_batch():
    index = jnp.array([17, 3, 3999])
    np.testing.assert_array_equal(example_normal(jax.random.key(0), index, SHAPE), DRAWN[np.asarray(index)])
    assert example_normal(jax.random.key(0), index[:0], SHAPE).shape == (0, *SHAPE)


def test_all_examples_have_different_noise():
    assert len(np.unique(DRAWN[:, 0, :2], axis=0)) == N
