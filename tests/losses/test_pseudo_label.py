"""Compares the cross-entropy with pseudo-labels with a textbook loop; tests symmetries and numbers of devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.losses import pseudo_label_loss
from tests.losses.test_contrastive import (
    COLUMNS,
    FORM_CASES,
    HARD,
    ROWS,
    assert_any_number_of_devices,
    assert_close,
    slope,
    softmax,
    views,
)

N, K = 24, 5
LABELS = np.arange(N) % (K + 1) - 1  # Every sixth row is excluded.
SWITCH = pytest.mark.parametrize("double_softmax", [False, True])


def loop(p, labels, double_softmax=False):
    rows = [
        -np.log((softmax(x[None])[0] if double_softmax else x)[y]) for x, y in zip(p, labels, strict=True) if y >= 0
    ]
    return np.mean(rows)


OF_LOGITS = jax.jit(jax.value_and_grad(lambda x: pseudo_label_loss(jax.nn.softmax(x), jnp.zeros(N, jnp.int32))))
COMPILED = jax.jit(jax.value_and_grad(pseudo_label_loss), static_argnames="double_softmax")


def value_and_gradient(p, labels=LABELS, **options):
    return jax.device_get(COMPILED(p, labels, **options))


@SWITCH
def test_equals_the_loop(double_softmax):
    p = views()[0]
    of_p = partial(loop, labels=LABELS, double_softmax=double_softmax)
    value, _ = value_and_gradient(p.astype(np.float32), double_softmax=double_softmax)
    assert value.dtype == np.float32 and value == pytest.approx(of_p(p), rel=1e-5)
    with jax.enable_x64(True):
        value, gradient = value_and_gradient(p, double_softmax=double_softmax)
    assert value == pytest.approx(of_p(p), rel=1e-12)
    for direction in np.random.default_rng(7).normal(size=(4, N, K)):
        assert np.sum(gradient * direction) == pytest.approx(slope(of_p, [p], [direction], 1e-6), rel=1e-6, abs=1e-8)


def test_known_values():
    """The values are twice those of DMIM, which uses half the cross-entropy."""
    i, j = np.mgrid[:6, :3]
    p, labels = softmax(2 * np.sin(1 + 0.7 * i + 1.3 * j)), np.arange(6) % 3
    assert pseudo_label_loss(p, labels, double_softmax=True) == pytest.approx(2 * 0.5448198, abs=1e-6)
    assert pseudo_label_loss(p, labels) == pytest.approx(2 * 0.7328317, abs=1e-6)


def test_range():
    labels = np.maximum(LABELS, 0)
    right = np.eye(K)[labels]
    assert pseudo_label_loss(right, labels) == 0
    least = np.log(1 + (K - 1) / np.e)
    assert pseudo_label_loss(right, labels, double_softmax=True) == pytest.approx(least, rel=1e-6)
    uniform = np.full((N, K), 1 / K)
    assert pseudo_label_loss(uniform, labels) == pytest.approx(np.log(K), rel=1e-6)


@SWITCH
def test_symmetries(double_softmax):
    """The rows are permuted, the clusters are relabelled on both sides, or the batch is duplicated."""
    p = views()[0]
    relabelled = np.where(LABELS >= 0, np.argsort(COLUMNS)[LABELS], -1)
    with jax.enable_x64(True):
        value, gradient = value_and_gradient(p, double_softmax=double_softmax)
        moved = {
            "rows": (p[ROWS], LABELS[ROWS], gradient[ROWS]),
            "clusters": (p[:, COLUMNS], relabelled, gradient[:, COLUMNS]),
            "twice": (np.concatenate([p, p]), np.concatenate([LABELS, LABELS]), np.concatenate([gradient / 2] * 2)),
        }
        for rows, labels, expected in moved.values():
            moved_value, moved_gradient = value_and_gradient(rows, labels, double_softmax=double_softmax)
            assert_close(moved_value, value, 1e-12)
            assert_close(moved_gradient, expected, 1e-12)


@SWITCH
def test_excluded_rows(double_softmax):
    """Excluded rows may have any values and change nothing. Their labels may be any negative number."""
    p, counts = views()[0], LABELS >= 0
    value, gradient = value_and_gradient(p, double_softmax=double_softmax)
    alone, gradient_alone = value_and_gradient(p[counts], LABELS[counts], double_softmax=double_softmax)
    broken = np.where(counts[:, None], p, np.nan)
    labels = np.where(counts, LABELS, -100)
    still, still_gradient = value_and_gradient(broken, labels, double_softmax=double_softmax)
    assert_close(alone, value, 1e-6)
    assert still == value and not still_gradient[~counts].any()
    np.testing.assert_array_equal(still_gradient, gradient)
    assert_close(gradient_alone, gradient[counts], 1e-6)


@SWITCH
def test_all_rows_excluded(double_softmax):
    value, gradient = value_and_gradient(views()[0], np.full(N, -1), double_softmax=double_softmax)
    assert value == 0 and not gradient.any()


def test_a_label_out_of_range_is_detected():
    assert np.isnan(pseudo_label_loss(views()[0], np.full(N, K)))


@pytest.mark.parametrize("hard", HARD)
@SWITCH
def test_finite_value_and_gradient(double_softmax, hard):
    value, gradient = value_and_gradient(HARD[hard].astype(np.float32), double_softmax=double_softmax)
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("gap", [20.0, 80.0, 87.0, 100.0, 1e4])
def test_finite_gradient_through_softmax(gap):
    """The cluster of the label becomes empty in training. While its share is a normal number, the gradient is full."""
    logits = jnp.zeros((N, K)).at[:, 0].add(-gap)
    value, gradient = OF_LOGITS(logits)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert gap > 85 or gradient[:, 0] == pytest.approx(-1 / N, rel=1e-5)


@SWITCH
def test_half_precision_is_computed_in_float32(double_softmax):
    half = jnp.asarray(views()[0], jnp.bfloat16)
    value, gradient = value_and_gradient(half, double_softmax=double_softmax)
    expected, exact = value_and_gradient(half.astype(jnp.float32), double_softmax=double_softmax)
    assert value.dtype == np.float32 and value == expected
    np.testing.assert_array_equal(gradient, exact.astype(jnp.bfloat16), strict=True)


def network_loss(double_softmax, weights, a, b, axis_name=None):
    """The labels come from the other view. Distant rows have no label: in the test, all rows of two devices."""
    labels = jnp.where(b[:, 0] > 5, -1, jnp.argmax(b, axis=1))
    p = jax.nn.softmax(a @ weights)
    return pseudo_label_loss(p, labels, double_softmax=double_softmax, axis_name=axis_name)


@pytest.mark.parametrize("form", FORM_CASES)
@SWITCH
def test_any_number_of_devices(double_softmax, form):
    rng = np.random.default_rng(6)
    a, b, weights = (rng.normal(size=size) for size in ((N, K), (N, K), (K, K)))
    b[: N // 4 + 1, 0] += 10  # The third device has labels for a part of its rows.
    arrays = [jnp.asarray(x, jnp.float32) for x in (weights, a, b)]
    assert_any_number_of_devices(partial(network_loss, double_softmax), arrays, form)


P = np.ones((4, 3), np.float32)
ERRORS = {
    "lengths differ": (P, np.zeros(3, int), r"int64 \(3,\) for \(4, 3\)"),
    "labels of rank 2": (P, np.zeros((4, 3), int), r"int64 \(4, 3\) for \(4, 3\)"),
    "soft labels": (P, np.zeros(4, np.float32), r"float32 \(4,\) for \(4, 3\)"),
    "bool labels": (P, np.zeros(4, bool), r"bool \(4,\) for \(4, 3\)"),
    "p of rank 1": (P[0], np.zeros(3, int), r"rank 2, got \(3,\)"),
    "integer p": (P.astype(np.int32), np.zeros(4, int), r"floating point, got int32"),
}


@pytest.mark.parametrize("error", ERRORS)
def test_errors(error):
    p, labels, message = ERRORS[error]
    with pytest.raises(ValueError, match=f"^pseudo_label_loss: .*{message}"), jax.enable_x64(True):
        pseudo_label_loss(p, labels)
