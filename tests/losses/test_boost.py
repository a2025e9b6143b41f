"""Tests the contrast without negatives of the same label: against a plain loop, and by its invariances."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from clustering_jax.losses import labelled_nt_xent, nt_xent
from clustering_jax.parallel import data_mesh

LABELS = np.array([0, 0, 1, -1, 2, 1, -1, 0])


def rows(n=8, d=5, seed=0):
    x = np.random.default_rng(seed).normal(size=(2, n, d))
    return (x / np.linalg.norm(x, axis=2, keepdims=True)).astype(np.float32)


def loop(a, b, labels, temperature):
    """The definition, row by row."""
    z, y, n = np.concatenate([a, b]).astype(np.float64), np.concatenate([labels, labels]), len(a)
    losses = []
    for i in range(2 * n):
        positive = (i + n) % (2 * n)
        negatives = [j for j in range(2 * n) if j not in (i, positive) and not (y[i] >= 0 and y[j] == y[i])]
        similar = np.exp(z[[positive, *negatives]] @ z[i] / temperature)
        losses.append(-np.log(similar[0] / similar.sum()))
    return np.mean(losses)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_loss_equals_the_plain_loop(temperature):
    expected = loop(*rows(), LABELS, temperature)
    np.testing.assert_allclose(labelled_nt_xent(*rows(), LABELS, temperature=temperature), expected, rtol=1e-5)


@pytest.mark.long
def test_without_labels_it_is_nt_xent_and_with_one_label_zero():
    none = labelled_nt_xent(*rows(), np.full(8, -1), temperature=0.2)
    np.testing.assert_allclose(none, nt_xent(*rows(), temperature=0.2), rtol=1e-6)
    value, gradient = jax.value_and_grad(labelled_nt_xent)(jnp.asarray(rows()[0]), rows()[1], np.full(8, 3))
    assert value == 0 and not np.asarray(gradient).any()


def test_the_gradient_equals_finite_differences():
    a, b = rows(5, 3)
    labels = LABELS[:5]
    gradients = jax.grad(labelled_nt_xent, argnums=(0, 1))(jnp.asarray(a), jnp.asarray(b), labels)
    for side, i, j in np.ndindex(2, 5, 3):
        up, down = (np.stack([a, b]).astype(np.float64) for _ in range(2))
        up[side, i, j] += 1e-4
        down[side, i, j] -= 1e-4
        expected = (loop(*up, labels, 0.5) - loop(*down, labels, 0.5)) / 2e-4
        assert abs(float(gradients[side][i, j]) - expected) < 1e-3


@pytest.mark.long
def test_on_several_devices_it_is_the_loss_of_the_whole_batch():
    loss = partial(labelled_nt_xent, axis_name="data")
    mapped = jax.shard_map(loss, mesh=data_mesh(8), in_specs=P("data"), out_specs=P())
    a, b, labels = jnp.asarray(rows()[0]), jnp.asarray(rows()[1]), jnp.asarray(LABELS)
    (value, gradients), (expected, all_gradients) = (
        jax.value_and_grad(function, argnums=(0, 1))(a, b, labels) for function in (mapped, labelled_nt_xent)
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(np.stack(gradients), np.stack(all_gradients), atol=1e-6)


@pytest.mark.parametrize(
    "labels, temperature, message",
    [(np.zeros(8), 0.5, "integer labels"), (LABELS[:4], 0.5, r"\(4,\)"), (LABELS, 0, "> 0")],
)
def test_wrong_arguments_are_named(labels, temperature, message):
    with pytest.raises(ValueError, match=message):
        labelled_nt_xent(*rows(), labels, temperature=temperature)
