"""The losses of contrastive fusion: textbook loops, finite differences, invariances, and several devices."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.losses import decoupled_contrast, discrepancy_weights, normalize
from tests.losses.test_contrastive import ERRORS, FORM_CASES, assert_any_number_of_devices, slope

N, D, VIEWS = 9, 4, 3
RNG = np.random.default_rng(0)
ORDER = RNG.permutation(N)
ROTATION = np.linalg.qr(RNG.normal(size=(D, D)))[0]


def unit(*shape):
    x = RNG.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


A, B, *R = unit(2 + VIEWS, N, D)
USED = np.arange(N) % 3 > 0
MASK = np.stack([USED, np.arange(N) < 5, np.ones(N, bool)], 1)


def contrast_loop(a, b, temperature=1.0):
    """The definition, with all denominators."""
    losses = []
    for i in range(len(a)):
        others = sum(np.exp(a[i] @ b[j] / temperature) for j in range(len(a)) if j != i)
        losses.append(-np.log(np.exp(a[i] @ b[i] / temperature) / others))
    return np.mean(losses)


def weights_loop(h, views, mask):
    """The discrepancy as the authors write it: sums over all pairs of rows, divided by the number of pairs."""
    values = []
    for v, view in enumerate(views):
        x, y = h[mask[:, v]], view[mask[:, v]]
        values.append(((y @ y.T).sum() + (x @ x.T).sum() - 2 * (y @ x.T).sum()) / len(x) ** 2)
    falling = np.exp(-np.array(values))
    return falling / falling.sum()


@cache
def value_and_gradients():
    return jax.jit(jax.value_and_grad(decoupled_contrast, (0, 1)), static_argnames="temperature")


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_the_contrast_is_the_textbook_loop(temperature):
    with jax.enable_x64(True):
        value, gradients = jax.device_get(value_and_gradients()(A, B, temperature=temperature))
    assert value == pytest.approx(contrast_loop(A, B, temperature), rel=1e-12)
    for directions in RNG.normal(size=(4, 2, N, D)):
        along = sum(np.sum(g * v) for g, v in zip(gradients, directions, strict=True))
        difference = slope(partial(contrast_loop, temperature=temperature), (A, B), directions, 1e-6)
        assert along == pytest.approx(difference, rel=1e-6, abs=1e-8)


def test_known_values_of_the_contrast():
    """n - 1 negatives and no positive: log(n - 1) for equal rows, less than 0 where all pairs are far apart."""
    equal, apart = np.ones((5, 1)), 9 * np.array([[1.0], [-1.0]])
    assert float(decoupled_contrast(equal, equal)) == pytest.approx(np.log(4))
    assert float(decoupled_contrast(apart, apart)) == pytest.approx(-162)


MOVES = {
    "order of rows": lambda a, b: (a[ORDER], b[ORDER]),
    "rotation": lambda a, b: (a @ ROTATION, b @ ROTATION),
    "order of columns": lambda a, b: (a[:, ::-1], b[:, ::-1]),
}


@pytest.mark.parametrize("move", MOVES)
def test_what_does_not_change_the_losses(move):
    value, moved = decoupled_contrast(A, B), decoupled_contrast(*MOVES[move](A, B))
    np.testing.assert_allclose(moved, value, rtol=1e-5)
    weights = discrepancy_weights(A, R)
    np.testing.assert_allclose(
        discrepancy_weights(MOVES[move](A, A)[0], [MOVES[move](r, r)[0] for r in R]), weights, rtol=1e-5
    )


def test_the_pairing_and_the_anchor_matter():
    value = decoupled_contrast(A, B)
    assert abs(decoupled_contrast(A, B[::-1]) - value) > 1e-2 and abs(decoupled_contrast(B, A) - value) > 1e-3


def test_rows_that_are_left_out_have_no_effect():
    a, b = (np.where(USED[:, None], x, np.nan).astype(np.float32) for x in (A, B))
    value, gradients = value_and_gradients()(a, b, where=USED)
    expected, full = jax.value_and_grad(decoupled_contrast, (0, 1))(jnp.asarray(A[USED]), jnp.asarray(B[USED]))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for gradient, wanted in zip(gradients, full, strict=True):
        np.testing.assert_allclose(np.asarray(gradient)[USED], wanted, atol=1e-6)
        assert not np.asarray(gradient)[~USED].any()


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_rows_give_no_loss(count):
    value, gradients = value_and_gradients()(A, B, where=np.arange(N) < count)
    assert value == 0 and not any(np.asarray(g).any() for g in gradients)


def test_the_weights_are_the_textbook_loop():
    everywhere = np.ones((N, VIEWS), bool)
    np.testing.assert_allclose(discrepancy_weights(A, R), weights_loop(A, R, everywhere), rtol=1e-5)
    views = [np.where(present[:, None], r, np.nan) for r, present in zip(R, MASK.T, strict=True)]
    np.testing.assert_allclose(discrepancy_weights(A, views, where=MASK), weights_loop(A, R, MASK), rtol=1e-5)


def test_weights_of_equal_near_and_absent_views():
    np.testing.assert_allclose(discrepancy_weights(A, [B] * 4), 0.25, rtol=1e-6)
    near, far = discrepancy_weights(A, [A, A + 1])
    assert near > 0.9 > far > 0
    absent = MASK & (np.arange(VIEWS) != 1)
    weights = discrepancy_weights(A, R, where=absent)
    assert weights[1] == 0
    np.testing.assert_allclose(weights[jnp.array([0, 2])], discrepancy_weights(A, R[::2], where=absent[:, ::2]))
    np.testing.assert_allclose(discrepancy_weights(A, R, where=np.zeros_like(MASK)), 1 / 3, rtol=1e-6)


def test_no_gradient_flows_through_the_weights():
    gradients = jax.grad(lambda h, r: discrepancy_weights(h, [r, 2 * r])[0], (0, 1))(jnp.asarray(A), jnp.asarray(B))
    assert not any(np.asarray(g).any() for g in gradients)


def network_loss(weights, a, b, axis_name=None):
    h, *r = (normalize(x) for x in (a @ weights, b @ weights, b))
    where = jnp.stack([a[:, 0] > -0.5, b[:, 0] > -0.5], 1)
    each = discrepancy_weights(h, r, where=where, axis_name=axis_name)
    return sum(
        each[v] * decoupled_contrast(h, r[v], where=where[:, v], temperature=0.5, axis_name=axis_name) for v in (0, 1)
    )


@pytest.mark.parametrize("n", [24, pytest.param(8, marks=pytest.mark.long)])
@pytest.mark.parametrize("form", FORM_CASES)
def test_any_number_of_devices(n, form):
    rng = np.random.default_rng(6)
    a = rng.normal(size=(n, 5))
    arrays = [jnp.asarray(x, jnp.float32) for x in (rng.normal(size=(5, 5)), a, a + rng.normal(size=a.shape))]
    assert_any_number_of_devices(network_loss, arrays, form)


@pytest.mark.parametrize("error", ERRORS)
def test_errors(error):
    arrays, message = ERRORS[error]
    with pytest.raises(ValueError, match=f"^decoupled_contrast: .*{message}"):
        decoupled_contrast(*arrays)
    with pytest.raises(ValueError, match=f"^discrepancy_weights: .*{message}"):
        discrepancy_weights(arrays[0], arrays[1:])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: decoupled_contrast(A, B, temperature=0), "temperature > 0, got 0"),
        (lambda: decoupled_contrast(A, B, where=USED[:4]), r"where \[n\], got \(4,\)"),
        (lambda: discrepancy_weights(A, R, where=USED), r"where \[n, views\], got \(9,\) for \(9, 3\)"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
