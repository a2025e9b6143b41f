"""Near-duplicates: planted copies are marked and other rows are not, in spread and in collapsed embeddings."""

import numpy as np
import pytest

from clustering_jax.data.images.streaming import LazyArray
from clustering_jax.inference import duplicates, rows

N, COPIES = 1000, 40
SHARE = 0.35


def spread(rng):
    return rng.normal(size=(N, 32))


def collapsed(rng):
    """Ten clusters whose rows have cosines of almost 1; half of the clusters are ten times as narrow as the others."""
    width = np.where(np.arange(N) % 10 < 5, 0.003, 0.03)[:, None]
    return np.random.default_rng(9).normal(size=(10, 32))[np.arange(N) % 10] + width * rng.normal(size=(N, 32))


def shifted(rng):
    """All rows in nearly the same direction."""
    return 50 + rng.normal(size=(N, 16))


def flat(rng):
    """Three columns are two dimensions on the sphere, in which many rows are near by chance."""
    return rng.normal(size=(N, 3))


MADE = {made.__name__: made for made in (spread, collapsed, shifted, flat)}


def groups(x, share=SHARE, first=None):
    first = np.arange(len(x)) if first is None else first
    return duplicates.duplicate_groups(x, rows.similar_rows(x, 20), share, first)


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("jitter", [0, 0.02])
def test_planted_copies_are_found_and_few_other_rows(name, jitter):
    """The jitter is a share of the distance to the nearest row, per copy."""
    rng = np.random.default_rng(0)
    x = rows.unit(MADE[name](rng))
    nearest = duplicates.distances(x, rows.similar_rows(x, 1))
    noise = rng.normal(size=(COPIES, x.shape[1]))
    noise *= jitter * nearest[:COPIES] / np.linalg.norm(noise, axis=1, keepdims=True)
    found = groups(rows.unit(np.concatenate([x, x[:COPIES] + noise])))
    assert (found[:COPIES] >= 0).all() and (found[:COPIES] == found[N:]).all()
    assert (found[COPIES:N] >= 0).mean() < 0.02


def test_groups_are_the_components_of_the_textbook_pairs():
    """A loop over all pairs, in an embedding in which copies are chained."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 12))
    x = rows.unit(np.concatenate([x, x[:9] + 0.05 * rng.normal(size=(9, 12)), x[:4] - 0.05 * rng.normal(size=(4, 12))]))
    apart = np.linalg.norm(x[:, None] - x, axis=2)
    scale = np.sort(apart, axis=1)[:, 5]
    group, count = np.full(len(x), -1), 0
    linked = apart <= SHARE * np.minimum(scale[:, None], scale)
    for row in range(len(x)):
        if group[row] < 0 and linked[row].sum() > 1:
            reached = {row}
            while (wider := {j for i in reached for j in np.flatnonzero(linked[i]).tolist()}) != reached:
                reached = wider
            group[sorted(reached)] = count
            count += 1
    assert count == 9
    np.testing.assert_array_equal(groups(x), group)


@pytest.mark.parametrize("size", [2, 20])
def test_equal_rows_are_one_group_however_many_they_are(size):
    """Where all rows have copies there is no scale, and more copies than neighbours are linked by their features."""
    features = {"image": np.repeat(np.arange(3), size)[:, None].astype(np.float32)}
    first = duplicates.first_equal(features, 3 * size)
    np.testing.assert_array_equal(first, np.repeat(np.arange(3) * size, size))
    x = rows.unit(np.repeat(np.eye(3), size, axis=0) + 1e-5 * np.random.default_rng(0).normal(size=(3 * size, 3)))
    np.testing.assert_array_equal(groups(x, 0.0, first), np.repeat([0, 1, 2], size))


def test_rows_are_equal_if_all_their_features_are():
    features = {"view0": np.array([[1, 2], [1, 2], [1, 3], [1, 2]], np.float32), "mask": np.array([1, 0, 1, 1])}
    assert duplicates.first_equal(features, 4).tolist() == [0, 1, 2, 0]


def test_pictures_in_storage_are_not_read():
    def read(index):
        raise AssertionError("a picture was read")

    assert duplicates.first_equal({"image": LazyArray((3, 2, 2, 3), read)}, 3).tolist() == [0, 1, 2]


def test_the_blocks_change_nothing(monkeypatch):
    x = rows.unit(spread(np.random.default_rng(0)))
    whole = duplicates.distances(x, rows.similar_rows(x, 5))
    monkeypatch.setattr(rows, "BLOCK", 999)
    np.testing.assert_array_equal(duplicates.distances(x, rows.similar_rows(x, 5)), whole)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_rows(n):
    x = rows.unit(np.random.default_rng(0).normal(size=(n, 8)))
    assert (groups(x) == -1).all()
    assert groups(np.concatenate([x, x[:1]])).tolist() == [0, *[-1] * (n - 1), 0]


def test_distances_below_the_rounding_of_cosines_are_not_compared():
    x = rows.unit([[1, 0, 0, 0]] + 1e-4 * np.random.default_rng(0).normal(size=(200, 4)))
    assert (groups(np.concatenate([x, x[:1]]))[1:-1] == -1).all()
