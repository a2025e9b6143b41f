"""Missing views from the nearest rows: a textbook loop, and what must not change the result."""

import numpy as np
import pytest

from clustering_jax.methods import imputation
from clustering_jax.methods.imputation import from_neighbours

RNG = np.random.default_rng(0)
N, WIDTHS = 40, (3, 7, 2)
VIEWS = [RNG.normal(size=(N, d)) * (v + 1) for v, d in enumerate(WIDTHS)]
MASK = RNG.random((N, 3)) < 0.6
MASK[np.arange(N), RNG.integers(3, size=N)] = True


def textbook(views, mask, neighbours):
    filled = [x.copy() for x in views]
    variance = [np.square(x[m] - x[m].mean(0)).sum(1).mean() for x, m in zip(views, mask.T, strict=True)]
    for i in range(len(mask)):
        for v in np.flatnonzero(~mask[i]):
            distances = {}
            for j in np.flatnonzero(mask[:, v]):
                shared = np.flatnonzero(mask[i] & mask[j])
                if len(shared):
                    distances[j] = np.mean([np.square(views[w][i] - views[w][j]).sum() / variance[w] for w in shared])
            near = sorted(distances, key=distances.get)[:neighbours]
            filled[v][i] = views[v][near].mean(0) if near else views[v][mask[:, v]].mean(0)
    return filled


@pytest.mark.parametrize("neighbours", [1, 4, 100])
def test_a_textbook_loop(neighbours):
    for found, expected in zip(
        from_neighbours(VIEWS, MASK, neighbours), textbook(VIEWS, MASK, neighbours), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_blocks_of_rows_change_nothing(monkeypatch):
    expected = from_neighbours(VIEWS, MASK)
    monkeypatch.setattr(imputation, "BLOCK", 7)
    for found, whole in zip(from_neighbours(VIEWS, MASK), expected, strict=True):
        np.testing.assert_allclose(found, whole, rtol=1e-6)


def test_present_rows_are_kept_and_missing_ones_are_not_read():
    other = [np.where(m[:, None], x, np.inf) for x, m in zip(VIEWS, MASK.T, strict=True)]
    for found, again, x, m in zip(
        from_neighbours(VIEWS, MASK), from_neighbours(other, MASK), VIEWS, MASK.T, strict=True
    ):
        np.testing.assert_allclose(found[m], x[m], rtol=1e-6)
        np.testing.assert_array_equal(found, again)


def test_the_scale_and_the_place_of_a_view_do_not_matter():
    expected = from_neighbours(VIEWS, MASK)
    moved = from_neighbours([VIEWS[0] * 100 + 5, *VIEWS[1:]], MASK)
    np.testing.assert_allclose(moved[0], expected[0] * 100 + 5, rtol=1e-3)
    np.testing.assert_allclose(moved[1], expected[1], rtol=1e-4)


def test_the_mean_where_no_row_has_both_views():
    mask = np.eye(2, dtype=bool)[np.arange(10) % 2]
    x, y = from_neighbours(VIEWS[:2], np.concatenate([mask] * 4))
    np.testing.assert_allclose(x[1], VIEWS[0][::2].mean(0), rtol=1e-5)
    np.testing.assert_allclose(y[0], VIEWS[1][1::2].mean(0), rtol=1e-5)


def test_a_view_that_no_row_has_is_zero():
    mask = MASK.copy()
    mask[:, 2], mask[:, 0] = False, True
    assert not from_neighbours(VIEWS, mask)[2].any()
