"""Decorrelation of columns: the textbook loop, its range, its invariances, and several devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from clustering_jax.losses import decorrelation
from clustering_jax.parallel import data_mesh

X = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)


def textbook(x):
    total = 0.0
    for a in range(x.shape[1]):
        for b in range(x.shape[1]):
            cosine = x[:, a] @ x[:, b] / np.linalg.norm(x[:, a]) / np.linalg.norm(x[:, b])
            total += (cosine - (a == b)) ** 2
    return total / x.shape[1] ** 2


def test_is_the_textbook_loop():
    assert float(decorrelation(X)) == pytest.approx(textbook(X.astype(np.float64)), rel=1e-5)


@pytest.mark.parametrize(
    ("x", "value"),
    [(np.eye(4)[:, :3], 0), (np.linalg.qr(X)[0], 0), (np.ones((4, 3)), 2 / 3), (np.eye(4) * [1, 1, 0, 1], 1 / 16)],
    ids=["identity", "orthogonal", "equal", "an empty column"],
)
def test_ends_of_the_range(x, value):
    assert float(decorrelation(jnp.array(x))) == pytest.approx(value, abs=1e-6)


ROTATION = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0].astype(np.float32)


@pytest.mark.parametrize(
    "change",
    [lambda x: x * np.array([1, 7, 0.1, 3, 1e4]), lambda x: x[::-1], lambda x: x[:, ::-1], lambda x: ROTATION @ x],
    ids=["scales", "order of rows", "order of columns", "rotation of rows"],
)
def test_what_does_not_change_it(change):
    assert float(decorrelation(jnp.array(change(X)))) == pytest.approx(float(decorrelation(X)), rel=1e-4)


@pytest.mark.long
def test_value_and_gradient_on_several_devices():
    loss = partial(decorrelation, axis_name="data")
    mapped = jax.shard_map(loss, mesh=data_mesh(4), in_specs=P("data"), out_specs=P())
    one, several = (jax.value_and_grad(function)(jnp.array(X)) for function in (decorrelation, mapped))
    np.testing.assert_allclose(several[0], one[0], rtol=1e-5)
    np.testing.assert_allclose(several[1], one[1], atol=1e-6)


@pytest.mark.parametrize("x", [np.zeros((4, 3)), 1e-20 * X, 1e20 * X], ids=["zeros", "small", "large"])
def test_finite(x):
    value, gradient = jax.value_and_grad(decorrelation)(jnp.array(x, jnp.float32))
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("x", [X[:1], X[0], np.ones((3, 2), int)], ids=["one row", "rank", "integers"])
def test_refuses(x):
    with pytest.raises(ValueError, match="decorrelation"):
        decorrelation(x)
