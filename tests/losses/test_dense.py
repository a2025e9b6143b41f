"""The form that keeps all similarities gives the same sums and derivatives from each view and from both views."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.losses import nt_xent
from clustering_jax.losses.blockwise import log_sums
from clustering_jax.losses.dense import dense_log_sums
from tests.losses.test_blockwise import unit_views


def weighed(sums):
    """A weighted sum of log-sums with different weights."""
    return jnp.sum(jnp.sin(jnp.arange(1.0, sums.size + 1)) * jnp.where(sums > -1e29, sums, 0).reshape(-1))


def kept(symmetric):
    return lambda a, b, t, examples: weighed(dense_log_sums(a, b, examples, t, symmetric=symmetric))


def in_blocks(a, b, t, examples):
    return weighed(log_sums(jnp.concatenate([a, b]), jnp.tile(examples, 2), t, block=5).reshape(2, -1))


@pytest.mark.parametrize("examples", [np.arange(1, 14), np.arange(1, 14) * (np.arange(13) % 3 > 0), np.zeros(13, int)])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.long
def test_equals_blockwise(symmetric, examples):
    with jax.enable_x64(True):
        arguments = (*(jnp.asarray(x, jnp.float64) for x in unit_views(13)), 0.3, examples)
        found, expected = (jax.value_and_grad(f, (0, 1, 2))(*arguments) for f in (kept(symmetric), in_blocks))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-12), found, expected)


@pytest.mark.long
def test_second_derivatives_are_the_same():
    with jax.enable_x64(True):
        a, b = (jnp.asarray(x, jnp.float64) for x in unit_views(5))
        one, other = (jax.hessian(kept(way), (0, 2))(a, b, 0.3, np.arange(1, 6)) for way in (False, True))
        plain = jax.hessian(lambda a, b, t: weighed(plainly(a, b, t)), (0, 2))(a, b, 0.3)
        for found in (one, other):
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9), found, plain)


def plainly(a, b, t):
    rows, n = jnp.concatenate([a, b]), len(a)
    same = np.tile(np.eye(n, dtype=bool), (2, 2))
    return jax.nn.logsumexp(jnp.where(same, -jnp.inf, rows @ rows.T / t), axis=1).reshape(2, n)


def test_the_symmetric_form_needs_three_products_forward():
    def products(symmetric):
        rows = jnp.ones((6, 3))
        text = str(
            jax.make_jaxpr(lambda a, b: dense_log_sums(a, b, jnp.arange(1, 7), 1.0, symmetric=symmetric))(rows, rows)
        )
        return text.count("dot_general")

    assert (products(True), products(False)) == (3, 4)


@pytest.mark.long
@pytest.mark.parametrize("impl", ["dense", "blockwise"])
def test_the_loss_uses_the_forms_for_one_device_on_one_device(impl, monkeypatch):
    def loss(a, b, t):
        return nt_xent(a, b, temperature=t, where=np.arange(20) % 3 > 0, impl=impl, block=8)

    with jax.enable_x64(True):
        arguments = (*(jnp.asarray(x, jnp.float64) for x in unit_views(20)), 0.3)
        programs, found = [], []
        for devices in (8, 1):
            monkeypatch.setattr(jax, "device_count", lambda devices=devices: devices)
            program = jax.value_and_grad(lambda *arguments: loss(*arguments), (0, 1, 2))
            programs.append(str(jax.make_jaxpr(program)(*arguments)))
            found.append(program(*arguments))
    assert programs[0] != programs[1]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-12), *found)
