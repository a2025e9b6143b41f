"""Compares `consistency` with the authors' values and a textbook loop; tests symmetries and numbers of devices."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.losses import cluster_contrast, consistency, imbalance, nt_xent
from tests.losses.test_contrastive import (
    COLUMNS,
    ERRORS,
    FORM_CASES,
    HARD,
    ROWS,
    assert_any_number_of_devices,
    assert_close,
    assert_same_on_a_duplicated_batch,
    slope,
    views,
)
from tests.paths import SHARED

AUTHORS = SHARED / "fixtures" / "reference_losses.npz"
FUNCTIONS = {
    "dxmc_consistency": consistency,
    "dxmc_cluster": cluster_contrast,
    "dxmc_instance": nt_xent,
    "dxmc_entropy": lambda p: jnp.log(p.shape[1]) - imbalance(p),
}


def loop(p, q):
    return np.mean([-np.log(sum(a * b for a, b in zip(x, y, strict=True))) for x, y in zip(p, q, strict=True)])


@cache
def value_and_gradients(name="dxmc_consistency", arrays=2):
    compiled = jax.jit(jax.value_and_grad(FUNCTIONS[name], tuple(range(arrays))))
    return lambda *args, **options: jax.device_get(compiled(*args, **options))


@pytest.mark.parametrize("n, k", [(2, 2), (3, 5), (16, 10)])
def test_equals_the_loop(n, k):
    arrays = views(n, k)
    value, _ = value_and_gradients()(*(x.astype(np.float32) for x in arrays))
    assert value.dtype == np.float32 and value == pytest.approx(loop(*arrays), rel=1e-5)
    with jax.enable_x64(True):
        value, gradients = value_and_gradients()(*arrays)
    assert value == pytest.approx(loop(*arrays), rel=1e-12)
    for directions in np.random.default_rng(7).normal(size=(4, 2, n, k)):
        along = sum(np.sum(g * v) for g, v in zip(gradients, directions, strict=True))
        assert along == pytest.approx(slope(loop, arrays, directions, 1e-6), rel=1e-6, abs=1e-8)


def test_known_values():
    """The loss is 0 if both are certain and equal, log k if one is uniform, log 2 if one is between two clusters."""
    hard, even = np.eye(4)[[0, 1, 2, 3, 3]], np.full((5, 4), 0.25)
    assert consistency(hard, hard) == 0
    assert consistency(hard, even) == pytest.approx(np.log(4), rel=1e-6)
    assert consistency(even, even) == pytest.approx(np.log(4), rel=1e-6)
    assert consistency(hard, 0.5 * hard + 0.5 * hard[:, [1, 2, 3, 0]]) == pytest.approx(np.log(2), rel=1e-6)


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("x64, value_tolerance, gradient_tolerance", [(False, 1e-5, 1e-4), (True, 1e-9, 1e-9)])
def test_equals_the_code_of_the_authors(name, case, x64, value_tolerance, gradient_tolerance):
    if not AUTHORS.is_file():
        pytest.skip("../shared is absent: no values of the authors' code")
    with np.load(AUTHORS) as file:
        authors = {key.split("/")[2]: file[key] for key in file.files if key.startswith(f"{name}/{case}/")}
    arrays = [authors[key] for key in ("in0", "in1") if key in authors]
    options = {"temperature": authors["temperature"]} if "temperature" in authors else {}
    with jax.enable_x64(x64):
        value, gradients = value_and_gradients(name, len(arrays))(*map(jnp.asarray, arrays), **options)
    assert_close(value, authors["value"], value_tolerance)
    for i, gradient in enumerate(gradients):
        expected = authors[f"grad{i}"]
        if name != "dxmc_instance":  # A gradient through softmax does not depend on a constant per row.
            gradient, expected = (x - x.mean(1, keepdims=True) for x in (gradient, expected))
        assert_close(gradient, expected, gradient_tolerance)


MOVES = {
    "rows permuted": lambda a, b: (a[ROWS], b[ROWS]),
    "modalities swapped": lambda a, b: (b, a),
    "clusters relabelled": lambda a, b: (a[:, COLUMNS], b[:, COLUMNS]),
}


@pytest.mark.parametrize("move", MOVES)
def test_symmetries(move):
    with jax.enable_x64(True):
        value, gradients = value_and_gradients()(*views())
        moved_value, moved_gradients = value_and_gradients()(*MOVES[move](*views()))
    assert_close(moved_value, value, 1e-12)
    for moved, expected in zip(moved_gradients, MOVES[move](*gradients), strict=True):
        assert_close(moved, expected, 1e-12)


def test_the_pairing_of_rows_matters():
    a, b = views()
    together, rows, columns = (value_and_gradients()(a, x)[0] for x in (b, b[ROWS], b[:, COLUMNS]))
    assert rows > together + 1e-2 and columns > together + 1e-2


def test_duplicating_the_batch_changes_nothing():
    assert_same_on_a_duplicated_batch(value_and_gradients())


# --- Hard inputs


@pytest.mark.parametrize("hard", HARD)
def test_finite_value_and_gradient(hard):
    x = HARD[hard].astype(np.float32)
    for other in (x, np.roll(x, 1, axis=0), x[:, ::-1]):
        value, gradients = value_and_gradients()(x, other)
        assert np.isfinite(value) and np.isfinite(gradients).all()


def test_rows_without_overlap_have_a_loss_but_no_gradient():
    p, q = (x.astype(np.float32) for x in views())
    p[3], q[3] = np.eye(5)[[0, 1]]
    value, gradients = value_and_gradients()(p, q)
    others = np.delete(np.arange(24), 3)
    rest, alone = value_and_gradients()(p[others], q[others])
    assert value == pytest.approx((23 * rest - np.log(1e-30)) / 24, rel=1e-5)
    for gradient, expected in zip(gradients, alone, strict=True):
        assert not gradient[3].any()
        assert_close(gradient[others] * 24, expected * 23, 1e-5)


@pytest.mark.parametrize("gap", [20.0, 60.0, 80.0, 90.0, 1e4])
def test_finite_gradient_through_softmax(gap):
    """Both become certain of different clusters. While their overlap is a normal number, the gradient is full."""

    def loss(a, b):
        return consistency(jax.nn.softmax(a), jax.nn.softmax(b))

    a, b = (gap * jnp.eye(5)[jnp.full(8, c)] for c in (0, 1))
    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(a, b)
    assert np.isfinite(value) and np.isfinite(gradients).all()
    assert gap > 65 or gradients[0][:, 0] == pytest.approx(0.5 / 8, rel=1e-2)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32(dtype):
    half = [jnp.asarray(x, dtype) for x in views()]
    value, gradients = value_and_gradients()(*half)
    expected, exact = value_and_gradients()(*(x.astype(jnp.float32) for x in half))
    assert value.dtype == np.float32 and value == expected
    for gradient, full in zip(gradients, exact, strict=True):
        np.testing.assert_array_equal(gradient, full.astype(dtype), strict=True)


# --- Devices


def network_loss(weights, a, b, axis_name=None):
    p, q = (jax.nn.softmax(x @ weights) for x in (a, b))
    return consistency(p, q, axis_name=axis_name)


@pytest.mark.parametrize("n", [24, pytest.param(8, marks=pytest.mark.long)])
@pytest.mark.parametrize("form", FORM_CASES)
def test_any_number_of_devices(n, form):
    rng = np.random.default_rng(6)
    a = rng.normal(size=(n, 6))
    arrays = [jnp.asarray(x, jnp.float32) for x in (rng.normal(size=(6, 5)), a, a + rng.normal(size=a.shape))]
    assert_any_number_of_devices(network_loss, arrays, form)


@pytest.mark.parametrize("error", ERRORS)
def test_errors(error):
    arrays, message = ERRORS[error]
    with pytest.raises(ValueError, match=f"^consistency: .*{message}"):
        consistency(*arrays)
