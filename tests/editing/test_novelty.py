"""New rows beside old ones: what fits no cluster, what forms groups of its own, and how much the data drifts."""

import numpy as np
import pytest

from clustering_jax.editing.drift import drift, low_confidence, sizes
from clustering_jax.editing.new_data import kept_numbers
from clustering_jax.editing.novelty import novelty
from clustering_jax.inference.rows import unit


def around(directions, count, seed, noise=0.15):
    """Rows around each of some axes of a space of ten dimensions, and the axis of each."""
    rng = np.random.default_rng(seed)
    part = np.repeat(directions, count)
    return unit(np.eye(10)[part] + rng.normal(0, noise, (len(part), 10))), part


def test_rows_of_new_kinds_are_groups_of_their_own():
    (old, clusters), (new, part) = around([0, 1, 2], 60, 0), around([0, 1, 5, 6], 20, 1)
    novel = novelty(old, clusters, new, neighbours=10, most=1000)
    groups = [set(novel.group[part == p].tolist()) for p in (0, 1, 5, 6)]
    assert groups[:2] == [{-1}, {-1}] and {*groups[2], *groups[3]} == {0, 1} and groups[2] != groups[3]
    assert novel.fits_none[40:].all() and novel.fits_none[:40].mean() < 0.1
    # The numbers go by the sizes.
    more = np.concatenate([new, around([6], 30, 2)[0]])
    assert set(novelty(old, clusters, more, 10, 1000).group[80:].tolist()) == {0}


@pytest.mark.parametrize("count", [10, 200])
def test_rows_of_the_old_kinds_form_no_group(count):
    (old, clusters), (new, _) = around([0, 1, 2], 60, 0), around([0, 1, 2], count, 1)
    novel = novelty(old, clusters, new, neighbours=10, most=1000)
    assert (novel.group == -1).all() and novel.fits_none.mean() < 0.1


def test_a_single_odd_row_fits_no_cluster_and_has_no_group():
    (old, clusters), (new, _) = around([0, 1, 2], 60, 0), around([0, 5], 1, 1)
    novel = novelty(old, clusters, new, neighbours=10, most=1000)
    assert novel.fits_none.tolist() == [False, True] and novel.group.tolist() == [-1, -1]


def test_distances_are_those_of_a_loop():
    (old, clusters), (new, _) = around([0, 1], 12, 0), around([0, 5], 4, 1)
    novel = novelty(old, clusters, new, neighbours=3, most=1000)
    loop = [np.mean(sorted(1 - float(row @ other) for other in old)[:3]) for row in new]
    np.testing.assert_allclose(novel.new, loop, atol=1e-5)
    loop = [np.mean(sorted(1 - float(old[i] @ old[j]) for j in range(24) if j != i)[:3]) for i in range(24)]
    np.testing.assert_allclose(novel.old, loop, atol=1e-5)
    assert novel.limit == pytest.approx(np.quantile(loop, 0.99), abs=1e-5)
    assert len(novelty(old, clusters, new, neighbours=3, most=10).old) == 10


def test_drift_is_small_where_nothing_changed():
    rng = np.random.default_rng(0)
    (old, clusters), (same, _), (other, _) = around([0, 1], 60, 0), around([0, 1], 30, 1), around([1, 7], 30, 2)
    confidence = rng.random(120)
    low = low_confidence(confidence, 0.0)
    assert (confidence < low).mean() == pytest.approx(0.1, abs=0.01) and low_confidence(confidence, 0.5) == 0.5
    for new, least, most in ((same, 0, 2), (other, 4, 20)):
        novel = novelty(old, clusters, new, 5, 1000)
        facts = drift(confidence, np.full(60, 0.05), 0.1, novel, (old, new))
        assert least <= facts["shift"]["value"] / facts["shift"]["expected"] < most
        assert facts["low_confidence"]["new"] == 1 and facts["distance"]["new"] == pytest.approx(novel.new.mean())


def test_sizes_and_numbers():
    assert sizes(np.array([0, 0, 3, -1]), {0, 1, 3}) == {"-1": 1, "0": 2, "1": 0, "3": 1}
    before, after = np.array([0, 0, 0, 4, 4, 2, -1]), np.array([4, 4, 0, 0, 0, 2, 2])
    assert kept_numbers({0, 2, 4, 9}, before, after) == {4: 0, 0: 4, 2: 2, 9: 9}
