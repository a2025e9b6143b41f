"""Compares nearest neighbours with plain NumPy, for any blocks. The first row wins if cosines are equal."""

import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.kmeans.neighbours import nearest_neighbours


def cosines(x):
    """Cosines [n, n] in float64; -inf for a row with itself."""
    x = np.asarray(x, np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.where(norms > 0, norms, 1)
    found = unit @ unit.T
    np.fill_diagonal(found, -np.inf)
    return found


def by_hand(x, k):
    return np.argsort(-cosines(x), axis=1, kind="stable")[:, :k]


def corners(n, d=4):
    """Rows with many equal cosines, which are exact multiples of 2/d. With 4 columns, many rows are equal too."""
    return np.random.default_rng(0).choice([-1.0, 1.0], (n, d)).astype(np.float32)


@pytest.mark.parametrize("n, d, k", [(7, 3, 2), (65, 16, 10), (300, 32, 4)])
def test_equals_numpy_on_random_rows(n, d, k):
    rows = np.random.default_rng(n).normal(size=(n, d)) * np.random.default_rng(1).uniform(0.1, 10, (n, 1))
    found = nearest_neighbours(rows.astype(np.float32), k, block=50, columns=128)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, by_hand(rows, k))


# The groups of 64 columns are searched one by one only if a block has more than k of them.
SHAPES = {
    "one block": (200, 5, 512, 65536),
    "groups": (330, 3, 512, 65536),
    "groups of several blocks": (500, 2, 64, 192),
    "rows not divided": (200, 5, 7, 65536),
    "columns not divided": (200, 5, 512, 128),
    "neither": (131, 70, 50, 64),
    "columns no multiple of a group": (200, 2, 33, 100),
    "columns fewer than a group": (130, 2, 33, 10),
    "rows one by one": (9, 4, 1, 64),
    "all others": (70, 69, 64, 64),
    "two rows": (2, 1, 512, 65536),
}


@pytest.mark.parametrize("d", [4, 16])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_first_row_wins_ties_for_any_block_size(shape, d):
    """With 16 columns the groups have different maxima, and equal cosines below them lie in several groups."""
    n, k, block, columns = SHAPES[shape]
    rows = corners(n, d)
    np.testing.assert_array_equal(nearest_neighbours(rows, k, block=block, columns=columns), by_hand(rows, k))


@pytest.mark.parametrize("k, columns", [(2, 65536), (30, 64)])
def test_equal_rows_are_neighbours_in_row_order(k, columns):
    found = nearest_neighbours(np.ones((200, 4), np.float32), k, columns=columns)
    expected = np.tile(np.arange(k + 1), (200, 1))
    np.testing.assert_array_equal(found[k + 1 :], expected[k + 1 :, :k])
    np.testing.assert_array_equal(found[: k + 1], [np.delete(range(k + 1), row) for row in range(k + 1)])


@pytest.mark.parametrize("columns", [64, 65536])
def test_rows_of_zeros_have_cosine_0_with_all(columns):
    rows = corners(150)
    rows[[0, 70, 149]] = 0
    found = nearest_neighbours(rows, 149, columns=columns)
    np.testing.assert_array_equal(found, by_hand(rows, 149))
    np.testing.assert_array_equal(found[70], np.delete(np.arange(150), 70))


def test_norms_do_not_matter():
    rows = np.random.default_rng(2).normal(size=(40, 6)).astype(np.float32)
    scales = np.logspace(-18, 18, 40, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(nearest_neighbours(rows * scales, 5), nearest_neighbours(rows, 5))


def test_half_precision():
    rows = np.random.default_rng(3).normal(size=(60, 8)).astype(np.float16)
    np.testing.assert_array_equal(nearest_neighbours(rows, 5), by_hand(rows, 5))


X = np.ones((5, 2), np.float32)
ERRORS = {
    "k of 0": (X, 0, {}, r"1 <= k < n, got k = 0 for 5 rows"),
    "k of n": (X, 5, {}, r"1 <= k < n, got k = 5 for 5 rows"),
    "one row": (X[:1], 1, {}, r"1 <= k < n, got k = 1 for 1 rows"),
    "rank 1": (X[0], 1, {}, r"\[n, d\], got float32 of \(2,\)"),
    "integers": (X.astype(int), 1, {}, r"floating \[n, d\], got int(32|64) of \(5, 2\)"),
    "block of 0": (X, 1, {"block": 0}, r"1 or more, got block = 0"),
    "columns of 0": (X, 1, {"columns": 0}, r"1 or more, got block = 1024 and columns = 0"),
}


@pytest.mark.parametrize("error", ERRORS)
def test_errors(error):
    rows, k, options, message = ERRORS[error]
    with pytest.raises(ValueError, match=f"^nearest_neighbours: .*{message}"):
        nearest_neighbours(rows, k, **options)
