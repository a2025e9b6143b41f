"""Linear classifiers of feature spaces, fitted to soft labels by a few steps of Adam inside one compiled step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random

from clustering_jax.methods.feature_spaces import FeatureSpace
from clustering_jax.nn.mlp import torch_uniform
from clustering_jax.typing import Array, Float

B1, B2, EPS = 0.9, 0.999, 1e-8


class Probe(NamedTuple):
    """Linear classifiers and the state of their Adam optimiser.

    Attributes:
      layers: {space: {"kernel": [d, k], "bias": [k]}}.
      first: moving averages of the gradients, as `layers`.
      second: moving averages of the squared gradients, as `layers`.
      steps: [] number of Adam steps so far.
    """

    layers: Any
    first: Any
    second: Any
    steps: Array


@jax.custom_vjp
def frozen_product(rows: Float[Array, "n d"], kernel: Float[Array, "d k"]) -> Float[Array, "n k"]:
    """``rows @ kernel`` for frozen rows, to which no gradient flows.

    The gradient of the kernel is computed with the rows as the right factor, and transposed. JAX's own gradient has
    them as the left factor, which takes twice as long for few columns on a CPU.
    """
    return rows @ kernel


def _forward(rows: Array, kernel: Array) -> tuple[Array, Array]:
    return rows @ kernel, rows


def _backward(rows: Array, dy: Array) -> tuple[None, Array]:
    # Without the barrier XLA would move the transpose into the product, and have the rows as the left factor again.
    return None, lax.optimization_barrier(dy.T @ rows).T


frozen_product.defvjp(_forward, _backward)


def logits_of(layer: Mapping[str, Array], space: FeatureSpace) -> Float[Array, "n k"]:
    """Affine map of the scaled features. The scale multiplies the kernel: that spares a copy of the features."""
    return frozen_product(space.rows, space.scale * layer["kernel"]) + layer["bias"]


def cross_entropy(layers: Any, spaces: Mapping[str, FeatureSpace], tau: Float[Array, "n k"]) -> Float[Array, ""]:
    """Cross-entropy of the classifiers `layers` with the soft labels, averaged over rows and summed over spaces."""
    rows = {name: -jnp.sum(tau * jax.nn.log_softmax(logits_of(layers[name], s)), axis=1) for name, s in spaces.items()}
    return sum((jnp.sum(spaces[name].weight * values) for name, values in rows.items()), start=jnp.zeros(()))


def initial_probe(key: Array, widths: Mapping[str, int], k: int) -> Probe:
    """New classifiers, drawn as `torch.nn.Linear` draws them, and a new Adam state."""
    layers = {name: _uniform_layer(random.fold_in(key, i), d, k) for i, (name, d) in enumerate(widths.items())}
    # Two trees: buffers that are donated must not be shared.
    first, second = (jax.tree.map(jnp.zeros_like, layers) for _ in range(2))
    return Probe(layers, first, second, jnp.zeros(()))


def _uniform_layer(key: Array, d: int, k: int) -> dict[str, Array]:
    draw, (first, second) = torch_uniform(d), random.split(key)
    return {"kernel": draw(first, (d, k)), "bias": draw(second, (k,))}


def fit_probe(probe: Probe, spaces: Mapping[str, FeatureSpace], tau: Array, steps: int, rate: float) -> Probe:
    """`steps` steps of Adam on the cross-entropy with the fixed labels `tau`."""

    def step(probe: Probe, _: None) -> tuple[Probe, None]:
        gradient = jax.grad(cross_entropy)(probe.layers, spaces, tau)
        t = probe.steps + 1
        first = jax.tree.map(lambda m, g: B1 * m + (1 - B1) * g, probe.first, gradient)
        second = jax.tree.map(lambda v, g: B2 * v + (1 - B2) * g**2, probe.second, gradient)

        def moved(w: Array, m: Array, v: Array) -> Array:
            return w - rate * (m / (1 - B1**t)) / (jnp.sqrt(v / (1 - B2**t)) + EPS)

        return Probe(jax.tree.map(moved, probe.layers, first, second), first, second, t), None

    return lax.scan(step, probe, None, length=steps)[0]
