"""Compares k-means with scikit-learn and a textbook loop; tests hard inputs, memory and any number of devices."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans as Peer
from sklearn.datasets import load_digits, make_blobs
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from clustering_jax.kmeans import assign, kmeans, search
from clustering_jax.kmeans import lloyd as module
from clustering_jax.kmeans.row_blocks import label_sums
from clustering_jax.metrics import accuracy
from clustering_jax.parallel import batch_sharding, data_mesh

KEY = jax.random.key(0)


def run(x, k, key=KEY, **options):
    """Runs k-means and returns NumPy arrays."""
    return jax.device_get(kmeans(key, x, k, **options))


def peer(x, k, seed=0, **options):
    """Inertia of scikit-learn with one thread, because several threads wait for each other on a busy machine."""
    with threadpool_limits(1):
        return Peer(k, random_state=seed, **options).fit(x).inertia_


def blobs(n=600, d=5, k=6, seed=1):
    """Well separated blobs, whose best clustering is easy to find."""
    return make_blobs(n, d, centers=k, random_state=seed, cluster_std=0.5)[0].astype(np.float32)


def unstructured(n=500, d=16, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def squares(x, centers):
    """Squared distances [n, k], computed from the differences in float64."""
    return ((np.asarray(x, np.float64)[:, None] - np.asarray(centers, np.float64)) ** 2).sum(2)


def unit(x):
    norm = np.linalg.norm(np.asarray(x, np.float64), axis=1, keepdims=True)
    return x / np.where(norm > 0, norm, 1)


# --- Against scikit-learn

SETS = {
    "digits": (lambda: load_digits().data.astype(np.float32), 10),
    "blobs": (blobs, 6),
    "blobs far from 0": (lambda: blobs() + 1e3, 6),
    "overlapping": (lambda: unstructured() + 3 * np.eye(16, dtype=np.float32)[np.arange(500) % 4], 4),
}


@pytest.mark.parametrize("name", [pytest.param("digits", marks=pytest.mark.long), *list(SETS)[1:]])
def test_as_good_as_scikit_learn(name):
    make, k = SETS[name]
    x = make()
    expected = peer(x.astype(np.float64), k, n_init=10)
    result = run(x, k, block=256)
    assert result.inertia <= expected * (1 + 1e-4)
    assert squares(x, result.centers).min(1).sum() == pytest.approx(result.inertia, rel=1e-5)


@pytest.mark.parametrize("max_iter", [1, 300])
@pytest.mark.long
def test_restarts_are_as_good_as_scikit_learn_on_average(max_iter):
    """The means of 60 restarts agree within their uncertainty. After one iteration they depend on the initial rows."""
    x = unstructured(300, 2)
    one = jax.jit(lambda key: kmeans(key, x, 20, restarts=1, max_iter=max_iter).inertia)
    ours = np.array([one(key) for key in jax.random.split(KEY, 60)])
    with warnings.catch_warnings(action="ignore"):
        theirs = np.array([peer(x, 20, seed, n_init=1, max_iter=max_iter) for seed in range(60)])
    assert ours.mean() <= theirs.mean() + 2 * np.sqrt((ours.var() + theirs.var()) / 60)


def lloyd(x, centers, iterations):
    for _ in range(iterations):
        labels = squares(x, centers).argmin(1)
        centers = np.stack([x[labels == j].mean(0) for j in range(len(centers))])
    return centers


def spherical_lloyd(x, centers, iterations):
    for _ in range(iterations):
        labels = (unit(x) @ unit(centers).T).argmax(1)
        centers = np.stack([unit(x)[labels == j].sum(0) for j in range(len(centers))])
    return unit(centers)


@pytest.mark.parametrize("block, spherical", [(64, False), (2048, False), (499, True)])
def test_the_result_is_a_fixed_point_of_the_textbook_loop(block, spherical):
    """The blocks overlap, or one block holds all rows."""
    x = unstructured(500, 6) + 0.5
    result = run(x, 5, restarts=3, tol=0.0, spherical=spherical, block=block)
    step = spherical_lloyd if spherical else lloyd
    np.testing.assert_allclose(result.centers, step(x.astype(np.float64), result.centers, 1), atol=2e-6)
    assert result.iterations > 3


@pytest.mark.long
def test_stops_by_the_tolerance():
    """The loop stops earlier, close to the fixed point but not at it. A larger tolerance stops it even earlier."""
    x = unstructured(2000)
    runs = [run(x, 8, restarts=1, tol=tol) for tol in (0.0, 0.03, 1e9)]
    assert runs[0].iterations > runs[1].iterations > runs[2].iterations == 1
    assert runs[0].inertia < runs[1].inertia < runs[2].inertia
    moved = np.sum((lloyd(x, runs[1].centers, 1) - runs[1].centers) ** 2)
    assert 0 < moved < 0.03 * x.var(0).mean()


@pytest.mark.long
def test_max_iter():
    runs = [run(unstructured(), 8, restarts=1, tol=0.0, max_iter=m) for m in (1, 2)]
    assert [int(run.iterations) for run in runs] == [1, 2]
    np.testing.assert_allclose(runs[1].centers, lloyd(unstructured(), np.asarray(runs[0].centers), 1), atol=1e-5)


@pytest.mark.long
def test_more_restarts_are_never_worse():
    """There are more restarts than slots. When a restart ends, its slot takes another one."""
    inertias = [run(unstructured(), 100, restarts=r).inertia for r in (1, 3, 9)]
    assert inertias[0] >= inertias[1] * (1 - 1e-6) and inertias[1] >= inertias[2] * (1 - 1e-6)
    assert inertias[2] < inertias[0]


def test_the_result_is_a_pure_function_of_the_key():
    x = unstructured()
    first, again, other = (run(x, 8, key, restarts=3) for key in (KEY, KEY, jax.random.key(1)))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first.labels != other.labels).any()


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.long
def test_initial_rows_lie_in_separate_clusters(spherical):
    """After one iteration of one restart, greedy initial rows rarely miss one of 20 clusters; random rows always do."""
    x = 10 * np.eye(20, dtype=np.float32)[np.arange(400) % 20] + 0.1 * unstructured(400, 20)
    one = jax.jit(lambda key: kmeans(key, x, 20, restarts=1, max_iter=1, spherical=spherical).labels)
    found = [len(np.unique(one(key)[:20])) for key in jax.random.split(KEY, 10)]
    assert np.mean(found) == 20


def test_spherical_ignores_the_length_of_rows():
    x = unstructured(300, 6)
    first = run(x, 5, restarts=3, spherical=True)
    second = run(x * np.linspace(0.01, 100, 300, dtype=np.float32)[:, None], 5, restarts=3, spherical=True)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_allclose(np.linalg.norm(first.centers, axis=1), 1, rtol=1e-6)
    assert first.inertia == pytest.approx(np.sum(1 - np.max(unit(x) @ np.asarray(first.centers).T, 1)), rel=1e-5)


# --- Hard inputs


def repeated(n, distinct):
    return np.random.default_rng(0).normal(size=(distinct, 4)).astype(np.float32)[np.arange(n) % distinct]


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("distinct, k", [(1, 3), (3, 5), (7, 20)])
@pytest.mark.long
def test_fewer_distinct_rows_than_clusters(distinct, k, spherical):
    x = repeated(20, distinct)
    result = run(x, k, restarts=4, spherical=spherical, block=8)
    assert np.isfinite(result.centers).all() and 0 <= result.inertia < 1e-4
    labels = np.asarray(result.labels)
    assert len(np.unique(labels[:distinct])) == min(distinct, k)
    np.testing.assert_array_equal(labels, labels[np.arange(20) % distinct])


@pytest.mark.long
def test_empty_clusters_move_to_the_farthest_rows():
    """With equal initial rows all clusters but one are empty at first, so several empty clusters move at once."""
    x = jnp.asarray(blobs())
    rows = module.Rows(x, jnp.mean(x, 0), None, 128)
    ended = jax.jit(lambda: search.search(rows, jnp.zeros((1, 6), jnp.int32), 300, 1e-6).ended)()
    found = squares(x, ended[0] + rows.shift)
    assert len(np.unique(found.argmin(1))) == 6
    first, _ = search.iterate(rows, rows.take(jnp.zeros((1, 6), jnp.int32)))
    far = np.argsort(-squares(x, x[:1])[:, 0])[:5]
    np.testing.assert_allclose(first[0, 1:] + rows.shift, x[far], atol=1e-5)


@pytest.mark.long
def test_rows_of_zeros_are_harmless():
    x = unstructured(100, 6)
    zeros = np.concatenate([np.zeros((40, 6), np.float32), x])
    result = run(zeros, 4, restarts=20, spherical=True)
    alone = run(x, 4, restarts=20, spherical=True)
    assert np.isfinite(result.centers).all()
    assert result.inertia - 40 == pytest.approx(alone.inertia, rel=1e-2)
    np.testing.assert_allclose(np.linalg.norm(result.centers, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(assign(zeros, result.centers, spherical=True)[1][:40], 1)
    nothing = run(zeros[:9], 2, spherical=True)
    assert np.isfinite(nothing.centers).all() and nothing.inertia == 9


@pytest.mark.parametrize("n, k", [(1, 1), (7, 7), (8, 1)])
@pytest.mark.long
def test_as_many_clusters_as_rows_or_one(n, k):
    x = unstructured(n, 3)
    result = run(x, k, restarts=2, block=3)
    expected = 0 if n == k else x.astype(np.float64).var(0).sum() * n
    assert result.inertia == pytest.approx(expected, rel=1e-5, abs=1e-8)


@pytest.mark.long
def test_half_precision_is_computed_in_float32():
    half = jnp.asarray(blobs(100), jnp.bfloat16)
    result, expected = run(half, 6, restarts=2), run(half.astype(jnp.float32), 6, restarts=2)
    assert result.centers.dtype == jnp.float32 and result.labels.dtype == jnp.int32
    np.testing.assert_array_equal(result.labels, expected.labels)


@pytest.mark.long
def test_rows_far_from_zero():
    """The clusters are tight and lie at 1e4. In float32, the squares of 1e8 are too coarse to separate them."""
    x = blobs()
    near, far = run(x, 6), run(x + np.float32(1e4), 6)
    assert accuracy(near.labels, far.labels) == 1
    assert far.inertia == pytest.approx(near.inertia, rel=1e-2)


# --- Assignment


@pytest.mark.parametrize("block", [1, 7, 100, 2048])
def test_assign_equals_the_loop(block):
    x, centers = unstructured(100, 6), unstructured(9, 6, seed=1)
    labels, distances = assign(x, centers, block=block)
    np.testing.assert_array_equal(labels, squares(x, centers).argmin(1))
    np.testing.assert_allclose(distances, squares(x, centers).min(1), rtol=1e-5)
    labels, distances = assign(x, centers, block=block, spherical=True)
    cosines = unit(x) @ unit(centers).T
    np.testing.assert_array_equal(labels, cosines.argmax(1))
    np.testing.assert_allclose(distances, 1 - cosines.max(1), atol=1e-6)


def test_assign_is_exact_near_zero():
    centers = unstructured(5, 6) + 100
    x = centers + np.float32(1e-3)
    labels, distances = assign(x, centers)
    np.testing.assert_array_equal(labels, np.arange(5))
    np.testing.assert_allclose(distances, squares(x, centers).min(1), rtol=1e-3)
    np.testing.assert_array_equal(assign(centers, centers)[1], 0)


def test_labels_equal_assign():
    x = unstructured()
    result = run(x, 8)
    labels, distances = jax.device_get(assign(x, result.centers))
    np.testing.assert_array_equal(result.labels, labels)
    assert result.inertia == pytest.approx(np.sum(distances), rel=1e-6)


# --- Memory and devices


@pytest.mark.long
@pytest.mark.parametrize("spherical", [False, True])
def test_memory_beyond_the_rows(spherical):
    """A million rows of 512 numbers take 2 GB. They are not copied."""
    x = jax.ShapeDtypeStruct((1_000_000, 512), jnp.float32)
    compiled = jax.jit(partial(kmeans, k=100, restarts=10, spherical=spherical))
    memory = compiled.lower(KEY, x).compile().memory_analysis()
    assert memory.argument_size_in_bytes > 2e9
    assert memory.temp_size_in_bytes < 0.5e9


@pytest.mark.long
@pytest.mark.parametrize("block", [128, 4096])
def test_sharded_rows(block):
    x = blobs(1024)
    expected = run(x, 6, restarts=2, block=block)
    result = run(jax.device_put(x, batch_sharding(data_mesh(1024))), 6, restarts=2, block=block)
    # The order of the clusters may differ, because a sum with another rounding may draw another first row.
    assert adjusted_rand_score(result.labels, expected.labels) == 1
    ordered = (np.asarray(found.centers)[np.lexsort(np.asarray(found.centers).T)] for found in (result, expected))
    np.testing.assert_allclose(*ordered, atol=1e-5)


# --- Misuse

FLOATS = np.ones((4, 3), np.float32)
ERRORS = {
    "k > n": (lambda: kmeans(KEY, FLOATS, 5), r"1 <= k <= n, got k = 5 for rows of shape \(4, 3\)"),
    "k < 1": (lambda: kmeans(KEY, FLOATS, 0), "k = 0"),
    "rank 1": (lambda: kmeans(KEY, FLOATS[0], 1), r"\[n, d\].*, got float32 of shape \(3,\)"),
    "rank 3": (lambda: kmeans(KEY, FLOATS[None], 1), r"\(1, 4, 3\)"),
    "integers": (lambda: kmeans(KEY, FLOATS.astype(np.int32), 1), r"int32 of shape \(4, 3\)"),
    "no columns": (lambda: kmeans(KEY, FLOATS[:, :0], 1), r"\(4, 0\)"),
    "no restart": (lambda: kmeans(KEY, FLOATS, 1, restarts=0), "got 0 and 300"),
    "no iteration": (lambda: kmeans(KEY, FLOATS, 1, max_iter=0), "got 10 and 0"),
    "no block": (lambda: kmeans(KEY, FLOATS, 1, block=0), "block of 1 or more, got 0"),
    "assign rank 1": (lambda: assign(FLOATS[0], FLOATS), r"assign: .*\(3,\)"),
    "no centers": (lambda: assign(FLOATS, FLOATS[:0]), r"assign: .*\(0, 3\)"),
    "columns differ": (lambda: assign(FLOATS, FLOATS[:, :2]), r"\(4, 3\) and \(4, 2\)"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("k", [1, 31, 32, 200])
def test_label_sums(k):
    """Tests sizes below and above the limit from which rows are added one by one. The label k means no cluster."""
    rng = np.random.default_rng(k)
    rows, labels = rng.normal(size=(100, 3)).astype(np.float32), rng.integers(k + 1, size=(2, 100))
    sums, counts = label_sums(jnp.asarray(labels), jnp.asarray(rows), k)
    for slot, own in enumerate(labels):
        for cluster in range(k):
            np.testing.assert_allclose(sums[slot, cluster], rows[own == cluster].sum(0), atol=1e-5)
            assert counts[slot, cluster] == (own == cluster).sum()


# --- Fewer clusters than the program has room for


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("count", [1, 3, 6, 12])
@pytest.mark.long
def test_one_program_serves_any_number_of_clusters(count, spherical):
    """The result is as good as k-means with `count` clusters and a fixed point of its loop. Other rows are assigned."""
    x = blobs() + 0.5
    found = run(x, 12, count=jnp.int32(count), spherical=spherical, tol=0.0)
    centers = found.centers[:count]
    assert set(found.labels.tolist()) == set(range(count))
    if not spherical:
        assert found.inertia <= peer(x, count, n_init=10) * (1 + 1e-3)
    again = (spherical_lloyd if spherical else lloyd)(x.astype(np.float64), centers, 1)
    np.testing.assert_allclose(centers, again, atol=2e-6)
    fresh = blobs(seed=2)
    labels, distances = assign(fresh, found.centers, count=jnp.int32(count), spherical=spherical)
    far = 1 - unit(fresh) @ unit(centers).T if spherical else squares(fresh, centers)
    np.testing.assert_array_equal(labels, far.argmin(1))
    np.testing.assert_allclose(distances, far.min(1), rtol=1e-4, atol=1e-5)


def test_unused_clusters_take_no_row():
    """Used clusters that become empty take rows again. Initial rows are equal; there is room for six clusters."""
    x = jnp.asarray(blobs())
    rows, equal = module.Rows(x, jnp.mean(x, 0), None, 128), jnp.zeros((1, 6), jnp.int32)
    first, _ = search.iterate(rows, rows.take(equal), jnp.int32(4))
    far = np.argsort(-squares(x, x[:1])[:, 0])[:3]
    np.testing.assert_allclose(first[0, 1:4] + rows.shift, x[far], atol=1e-5)
    np.testing.assert_array_equal(first[0, 4:], 0)
