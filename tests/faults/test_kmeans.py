"""k-means in float32 on data with outliers, offsets and mixed scales: exact labels, comparable restarts; and in x64."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans as Peer
from threadpoolctl import threadpool_limits

from clustering_jax.kmeans import assign, kmeans
from clustering_jax.parallel import batch_sharding, data_mesh

RNG = np.random.default_rng(0)
PLAIN = RNG.normal(size=(200, 2))


def with_outliers(size, count=1):
    rows = PLAIN.copy()
    rows[-count:] = size * (1 + RNG.random((count, 2)))
    return rows


DATA = {
    "one row far away": (with_outliers(1e4), 4),
    "one row very far away": (with_outliers(1e7), 4),
    "several rows far away": (with_outliers(1e5, 3), 6),
    "an offset": (PLAIN + 1e4, 4),
    "an offset and a row far away": (with_outliers(1e6) + 1e3, 4),
    "mixed scales": (PLAIN * [1, 1e5], 4),
    "a scale and an offset": (PLAIN * [1, 100] + [0, 1e4], 4),
    "two groups far apart": (PLAIN + 1e5 * (np.arange(200) % 2)[:, None], 4),
    "tiny numbers": (PLAIN * 1e-12, 4),
    "equal rows": (PLAIN[np.arange(200) % 3], 5),
}


def squares(x, centers):
    return ((np.asarray(x, np.float64)[:, None] - np.asarray(centers, np.float64)) ** 2).sum(2)


def assert_nearest(x, centers, labels, distances=None):
    """No other center is nearer, in float64, by more than the rounding of a squared distance in float32."""
    exact = squares(x, centers)
    near = exact[np.arange(len(x)), labels]
    assert (near <= exact.min(1) * (1 + 1e-6)).all()
    if distances is not None:
        np.testing.assert_allclose(distances, near, rtol=2e-6)


@pytest.mark.parametrize("case", DATA)
def test_labels_are_the_nearest_centers(case):
    x, k = DATA[case]
    x = x.astype(np.float32)
    result = jax.device_get(kmeans(jax.random.key(0), x, k))
    assert_nearest(x, result.centers, result.labels)
    assert result.inertia == pytest.approx(squares(x, result.centers).min(1).sum(), rel=1e-5)
    assert_nearest(x, result.centers, *jax.device_get(assign(x, result.centers)))


@pytest.mark.parametrize("case", [case for case in DATA if case != "equal rows"])
def test_as_good_as_scikit_learn_in_float64(case):
    x, k = DATA[case]
    with threadpool_limits(1):
        peer = Peer(min(k, len(np.unique(x, axis=0))), n_init=10, tol=0, random_state=0).fit(x).inertia_
    assert kmeans(jax.random.key(0), x.astype(np.float32), k).inertia <= 1.05 * peer + 1e-30


@pytest.mark.parametrize("case", ["one row far away", "several rows far away", "an offset"])
@pytest.mark.long
def test_more_restarts_are_never_worse(case):
    """Restart i depends on the key and on i alone; the inertia was rounded to steps of 16."""
    x, k = DATA[case]
    x = x.astype(np.float32)
    found = [kmeans(jax.random.key(1), x, k, restarts=n) for n in (1, 2, 4, 8)]
    exact = [squares(x, result.centers).min(1).sum() for result in found]
    assert all(later <= earlier * (1 + 2e-6) for earlier, later in pairwise(exact))


def test_the_search_does_not_stop_after_one_step():
    """The tolerance was a share of a variance that one row made large."""
    x = with_outliers(1e5).astype(np.float32)
    assert kmeans(jax.random.key(0), x, 4, restarts=1).iterations > 3


def test_blocks_in_which_many_centers_are_as_near(monkeypatch):
    """Rows in the middle of a ring of centers."""
    angles = np.arange(6) * np.pi / 3
    centers = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32) + 1000
    x = (1000 + 1e-3 * RNG.normal(size=(300, 2))).astype(np.float32)
    assert_nearest(x, centers, *jax.device_get(assign(x, centers, block=64)))
    labels, _ = assign(x, np.r_[centers, x[:1]].astype(np.float32), count=jnp.int32(6))
    assert labels.max() < 6


def test_ties_take_the_first_center():
    centers = np.array([[2.0, 0], [0, 0], [0, 0], [-2, 0]], np.float32)
    labels, distances = assign(np.array([[1.0, 0], [-1, 0], [0, 1]], np.float32), centers)
    assert labels.tolist() == [0, 1, 1] and distances.tolist() == [1, 1, 1]


@pytest.mark.parametrize("block", [200, 64])
@pytest.mark.long
def test_rows_on_several_devices(block):
    x, k = DATA["several rows far away"]
    x = jnp.asarray(x, jnp.float32)
    one = kmeans(jax.random.key(0), x, k, block=block)
    mesh = data_mesh(200)
    many = kmeans(jax.random.key(0), jax.device_put(x, batch_sharding(mesh)), k, block=block)
    np.testing.assert_array_equal(one.labels, many.labels)
    np.testing.assert_allclose(one.centers, many.centers, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.long
def test_runs_in_x64(spherical):
    x, k = DATA["several rows far away"]
    with jax.enable_x64(True):
        result = kmeans(jax.random.key(0), jnp.asarray(x, jnp.float64), k, spherical=spherical, restarts=3)
        assert result.centers.dtype == jnp.float64 and result.labels.dtype == jnp.int32
        counted = kmeans(jax.random.key(0), jnp.asarray(x, jnp.float32), k, count=jnp.int32(3), block=64)
        assert counted.centers.dtype == jnp.float32 and int(counted.labels.max()) < 3
    if not spherical:
        np.testing.assert_array_equal(result.labels, squares(x, result.centers).argmin(1))
