"""Compares matchings with SciPy, and balanced labels with the formula without logarithms; tests their invariances."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix

from clustering_jax.losses import balanced_labels, contingency, maximum_matching
from tests.losses.test_contrastive import on_devices


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# --- Contingency


def test_contingency_counts_pairs():
    rng = np.random.default_rng(0)
    a, b = np.arange(200) % 4, rng.integers(0, 6, 200)
    table = jax.jit(contingency, static_argnums=(2, 3))(a, b, 4, 6)
    np.testing.assert_array_equal(table, contingency_matrix(a, b))


@pytest.mark.parametrize("outside", [-1, -7, 3, 99])
def test_contingency_ignores_labels_out_of_range(outside):
    a = np.array([0, 1, 2, outside, 0])
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    np.testing.assert_array_equal(contingency(a, np.array([0, 1, 2, 1, outside]), 3, 3), expected)


def test_contingency_has_the_requested_shape():
    np.testing.assert_array_equal(contingency(np.array([0, 0]), np.array([1, 1]), 2, 3), [[0, 2, 0], [0, 0, 0]])


# --- Maximum matching

MATCHING = jax.jit(maximum_matching)
TABLES = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "counts with ties": lambda rng, shape: rng.integers(0, 3, shape).astype(float),
    "mostly zeros": lambda rng, shape: np.where(rng.random(shape) < 0.9, 0, rng.integers(1, 100, shape)),
}


def assert_greatest(table, matched):
    """The matching has the value of SciPy's, is one to one, and covers the smaller side."""
    matched = np.asarray(matched)
    rows = np.flatnonzero(matched >= 0)
    assert matched.shape == (len(table),) and matched.min() >= -1
    assert len(rows) == min(table.shape) == len(set(matched[rows]))
    best = table[linear_sum_assignment(table, maximize=True)].sum()
    assert table[rows, matched[rows]].sum() == pytest.approx(best, rel=1e-5, abs=1e-5)


# Each size needs another compilation.
QUICK = (1, 2, 3, 5, 10, 20, 50)


@pytest.mark.parametrize("n", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in range(1, 51)])
def test_square_tables_of_every_size(n):
    rng = np.random.default_rng(n)
    tables = np.stack([make(rng, (n, n)) for make in TABLES.values()] + [np.zeros((n, n)), np.full((n, n), -2.5)])
    for table, matched in zip(tables, jax.jit(jax.vmap(maximum_matching))(tables.astype(np.float32)), strict=True):
        assert_greatest(table, matched)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (3, 7), (7, 3), (10, 30), (30, 10), (49, 50), (50, 49)])
@pytest.mark.parametrize("name", TABLES)
def test_rectangular_tables(name, shape):
    table = TABLES[name](np.random.default_rng(1), shape)
    assert_greatest(table, MATCHING(table.astype(np.float32)))


def test_finds_the_permutation():
    order = np.random.default_rng(2).permutation(20)
    a = np.random.default_rng(3).integers(0, 20, 500)
    np.testing.assert_array_equal(maximum_matching(contingency(order[a], a, 20, 20))[order], np.arange(20))


# --- Balanced labels

GRID = np.mgrid[:12, :3]
CARD = {
    "sines": (softmax(2 * np.sin(0.3 + 0.7 * GRID[0] + 1.3 * GRID[1])), [1, 1, 0, 0, 0, 2, 2, 2, 2, 1, 1, 0]),
    "one cluster is surest everywhere": (
        softmax(np.stack([0.6 + 0.1 * np.sin(GRID[0, :, 0]), 0.05 * np.cos(GRID[0, :, 0]), 0.02 * GRID[0, :, 0]], 1)),
        [1, 0, 0, 0, 1, 1, 1, 0, 0, 2, 2, 2],
    ),
}


def balanced_loop(p, power=10.0, tol=1e-2, max_iter=75):
    """The formula as in the paper: masses 1/k and 1/n, with a check at every tenth iteration."""
    n, k = p.shape
    powers = p.T**power
    c, iteration, change = np.full(n, 1 / n), 0, np.inf
    while change > tol and iteration < max_iter:
        r = (1 / k) / (powers @ c)
        new = (1 / n) / (r @ powers)
        if iteration % 10 == 0:
            change = np.sum(np.abs(c / new - 1))
        c, iteration = new, iteration + 1
    return np.argmax(r[:, None] * powers * c, axis=0)


def soft(n=300, k=6, scale=1.5, seed=0):
    """Soft assignments with one cluster, 0, that is much larger than the others."""
    logits = scale * np.random.default_rng(seed).normal(size=(n, k))
    return softmax(logits + np.eye(k)[0])


@pytest.mark.parametrize("name", CARD)
def test_known_labels(name):
    p, labels = CARD[name]
    np.testing.assert_array_equal(jax.jit(balanced_labels)(p), labels)


@pytest.mark.parametrize(
    "options", [{}, {"power": 2.0}, {"max_iter": 1}, {"max_iter": 11}, {"tol": 30.0}, {"tol": 0.0}]
)
def test_equals_the_loop(options):
    """The labels are equal also if the loop stops early, which gives other labels."""
    p = soft()
    with jax.enable_x64(True):
        np.testing.assert_array_equal(balanced_labels(p, **options), balanced_loop(p, **options))
    assert np.mean(balanced_labels(p.astype(np.float32), **options) == balanced_loop(p, **options)) > 0.99


def test_stops_at_the_same_iteration_as_the_loop():
    """The labels of the first, the eleventh and the last iteration differ, so the cases above can detect errors."""
    p = soft()
    ends = [balanced_loop(p, tol=0.0, max_iter=m) for m in (1, 11, 75)]
    assert (ends[0] != ends[1]).any() and (ends[1] != ends[2]).any()
    np.testing.assert_array_equal(balanced_labels(p, tol=1e9), ends[0])


def test_clusters_have_nearly_equal_sizes():
    p = soft()
    sizes = np.bincount(balanced_labels(p), minlength=6)
    assert np.bincount(p.argmax(1)).max() > 90
    assert sizes.min() >= 45 and sizes.max() <= 55


ROWS, CLUSTERS = np.random.default_rng(1).permutation(300), np.random.default_rng(2).permutation(6)
INVARIANTS = {
    "rows permuted": (lambda p: p[ROWS], lambda y: y[ROWS]),
    "clusters permuted": (lambda p: p[:, CLUSTERS], lambda y: np.argsort(CLUSTERS)[y]),
    "rows scaled": (lambda p: p * np.linspace(0.1, 1, 300)[:, None], lambda y: y),
    "clusters scaled": (lambda p: p * np.array([1, 0.5, 0.2, 1, 1, 0.1]), lambda y: y),
}


@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants(name):
    """The invariances of the fixed point: after many iterations, the scale of a column has no effect either."""
    move, turn = INVARIANTS[name]
    p, labels = soft(), jax.jit(partial(balanced_labels, tol=0.0, max_iter=2000))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(labels(move(p)), turn(np.asarray(labels(p))))


def with_zeros(kind):
    p = soft().astype(np.float32)
    if kind == "some entries":
        p[p < 0.05] = 0
    elif kind == "a cluster":
        p[:, 2] = 0
    elif kind == "a row":
        p[7] = 0
    elif kind == "everything":
        p[:] = 0
    else:
        p = np.eye(6, dtype=np.float32)[np.arange(300) % 6]
    return p


@pytest.mark.parametrize("kind", ["some entries", "a cluster", "a row", "everything", "one-hot"])
def test_exact_zeros(kind):
    """All rows that differ still fill the clusters evenly."""
    p = with_zeros(kind)
    sizes = np.bincount(jax.jit(balanced_labels)(p), minlength=6)
    assert len(sizes) == 6
    assert kind == "everything" or sizes.min() >= (0 if kind == "a cluster" else 35)
    if kind == "one-hot":
        np.testing.assert_array_equal(sizes, 50)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32(dtype):
    half = jnp.asarray(soft(), dtype)
    np.testing.assert_array_equal(balanced_labels(half), balanced_labels(half.astype(jnp.float32)))


@pytest.mark.parametrize("function", [balanced_labels, maximum_matching])
def test_labels_inside_a_loss_have_no_gradient(function):
    """The labels pass no gradient on, and differentiation raises no error."""
    p = jnp.asarray(soft(6), jnp.float32)
    gradient = jax.grad(lambda p: jnp.sum(p * function(p)[:, None]))(p)
    np.testing.assert_array_equal(gradient, np.broadcast_to(function(p)[:, None], (6, 6)))


def test_any_number_of_devices():
    p = soft(n=240).astype(np.float32)
    labels = jax.jit(balanced_labels)
    np.testing.assert_array_equal(labels(on_devices(p)), labels(p))


# --- Misuse

FLOATS, INTS = np.ones((4, 3), np.float32), np.ones(4, np.int32)
ERRORS = {
    "lengths differ": (lambda: contingency(INTS, INTS[:3], 2, 2), r"\(4,\) and int32 \(3,\)"),
    "floats": (lambda: contingency(FLOATS[:, 0], INTS, 2, 2), r"float32 \(4,\) and int32 \(4,\)"),
    "rank 2": (lambda: contingency(INTS[None], INTS[None], 2, 2), r"\(1, 4\)"),
    "a vector": (lambda: maximum_matching(INTS), r"\[rows, columns\], got \(4,\)"),
    "rank 1": (lambda: balanced_labels(FLOATS[0]), r"float32 of shape \(3,\)"),
    "integers": (lambda: balanced_labels(INTS[None]), r"int32 of shape \(1, 4\)"),
    "no rows": (lambda: balanced_labels(FLOATS[:0]), r"\(0, 3\)"),
    "power": (lambda: balanced_labels(FLOATS, power=0.0), "power > 0"),
    "max_iter": (lambda: balanced_labels(FLOATS, max_iter=0), "max_iter >= 1"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()
