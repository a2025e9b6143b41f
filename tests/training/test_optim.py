"""Compares schedules and optimisers with explicit formulas."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from clustering_jax.errors import UserError
from clustering_jax.training.optim import SCHEDULES, make_optimizer


def adam(grads, lr, w=0.0, b1=0.9, b2=0.999, eps=1e-8, decay=0.0):
    """Adam as in Kingma and Ba, with L2 regularisation in the gradient as in torch."""
    m = v = 0.0
    for t, g in enumerate(grads, 1):
        g = g + decay * w
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        w = w - lr(t - 1) * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return w


GRADS = np.sin(np.arange(1, 12)) * 3


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({}, adam(GRADS, lambda t: 3e-4, w=2.0)),
        ({"weight_decay": 0.1}, adam(GRADS, lambda t: 3e-4, w=2.0, decay=0.1)),
        ({"b2": 0.99, "learning_rate": 0.1}, adam(GRADS, lambda t: 0.1, w=2.0, b2=0.99)),
        ({"warmup_steps": 5}, adam(GRADS, lambda t: 3e-4 * min(t / 5, 1), w=2.0)),
        ({"schedule": "cosine"}, adam(GRADS, lambda t: 1.5e-4 * (1 + np.cos(np.pi * t / 11)), w=2.0)),
        ({"clip_norm": 1.0}, adam(np.clip(GRADS, -1, 1), lambda t: 3e-4, w=2.0)),
    ],
    ids=str,
)
def test_adam(settings, expected):
    tx = make_optimizer(total_steps=len(GRADS), **settings)
    w = {"w": jnp.asarray(2.0)}
    state = tx.init(w)
    for g in GRADS:
        updates, state = tx.update({"w": jnp.asarray(g, jnp.float32)}, state, w)
        w = optax.apply_updates(w, updates)
    np.testing.assert_allclose(w["w"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "name, warmup, points",
    [
        ("constant", 0, {0: 1.0, 99: 1.0}),
        ("constant", 10, {0: 0.0, 5: 0.5, 10: 1.0, 99: 1.0}),
        ("cosine", 0, {0: 1.0, 50: 0.5, 100: 0.0}),
        ("cosine", 20, {0: 0.0, 10: 0.5, 20: 1.0, 60: 0.5, 100: 0.0}),
    ],
)
def test_schedules(name, warmup, points):
    schedule = SCHEDULES[name](1.0, warmup, 100)
    np.testing.assert_allclose([schedule(t) for t in points], list(points.values()), atol=1e-6)


def test_an_unknown_schedule_suggests_the_nearest():
    with pytest.raises(UserError, match="cosine"):
        make_optimizer(total_steps=1, schedule="cosin")


@pytest.mark.parametrize("name, decayed", [("kernel", True), ("last_kernel", True), ("bias", False), ("scale", False)])
def test_adamw_decays_only_matrices(name, decayed):
    """Names decide, because biases are matrices too if seeds train side by side. The learning rate scales the decay."""
    tx = make_optimizer(total_steps=len(GRADS), learning_rate=0.1, warmup_steps=3, decoupled_decay=0.2)
    params = {name: jnp.full((2, 3), 2.0)}
    state = tx.init(params)
    m = v = 0.0
    w = 2.0
    for t, g in enumerate(GRADS, 1):
        updates, state = tx.update({name: jnp.full((2, 3), g, jnp.float32)}, state, params)
        params = optax.apply_updates(params, updates)
        m, v, rate = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g, 0.1 * min((t - 1) / 3, 1)
        w -= rate * ((m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + 0.2 * decayed * w)
    np.testing.assert_allclose(params[name], w, rtol=1e-5)
