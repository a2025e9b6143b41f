"""Compares the self-labelling loss with a plain loop, and tests its invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.losses import self_label_loss

RNG = np.random.default_rng(0)


def rows(n=40, k=4, sharp=8.0):
    logits = sharp * RNG.normal(size=(n, k))
    p = np.exp(logits - logits.max(1, keepdims=True))
    return (p / p.sum(1, keepdims=True)).astype(np.float32)


def loop(strong, weak, threshold):
    """The loss row by row, as described in the paper."""
    kept = [i for i in range(len(weak)) if weak[i].max() > threshold]
    labels = [weak[i].argmax() for i in kept]
    if not kept:
        return 0.0
    weights = [len(kept) / labels.count(label) for label in labels]
    losses = [-np.log(strong[i, label]) for i, label in zip(kept, labels, strict=True)]
    return np.average(losses, weights=weights)


@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.9, 0.99])
def test_equals_the_plain_loop(threshold):
    strong, weak = rows(sharp=1.0), rows()
    np.testing.assert_allclose(
        self_label_loss(strong, weak, threshold=threshold), loop(strong, weak, threshold), rtol=1e-5
    )


def test_no_confident_row_gives_zero_and_no_gradient():
    strong, weak = rows(), np.full((40, 4), 0.25, np.float32)
    value, gradient = jax.value_and_grad(self_label_loss)(jnp.asarray(strong), weak)
    assert value == 0 and not np.asarray(gradient).any()


def test_plain_rows_and_uncertain_rows_get_no_gradient():
    strong, weak = jnp.asarray(rows(sharp=1.0)), jnp.asarray(rows())
    by_strong, by_weak = jax.grad(self_label_loss, argnums=(0, 1))(strong, weak, threshold=0.9)
    unsure = np.asarray(weak.max(1)) <= 0.9
    assert not np.asarray(by_weak).any()
    assert not np.asarray(by_strong)[unsure].any() and np.asarray(by_strong)[~unsure].any(1).all()


def test_gradient_by_finite_differences():
    strong, weak = rows(6, 3, 1.0), rows(6, 3)
    gradient = np.asarray(jax.grad(self_label_loss)(jnp.asarray(strong), weak, threshold=0.5))
    for i, j in np.ndindex(strong.shape):
        up, down = strong.astype(np.float64), strong.astype(np.float64)
        up[i, j] += 1e-4
        down[i, j] -= 1e-4
        expected = (loop(up, weak, 0.5) - loop(down, weak, 0.5)) / 2e-4
        assert abs(gradient[i, j] - expected) < 1e-3 * max(1, abs(expected))


def test_clusters_have_equal_weight_for_any_size():
    """With nine rows of cluster 0 and one row of cluster 1, the mean loss of each cluster has half the weight."""
    weak = np.eye(2, dtype=np.float32)[[0] * 9 + [1]]
    strong = np.array([[0.5, 0.5]] * 9 + [[0.9, 0.1]], np.float32)
    np.testing.assert_allclose(self_label_loss(strong, weak), (np.log(2) + np.log(10)) / 2, rtol=1e-6)
