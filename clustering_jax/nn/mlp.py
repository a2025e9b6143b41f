"""Linear layers initialised as PyTorch's."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from clustering_jax.typing import Array, Float


class Linear(nn.Module):
    """``[..., n] -> [..., features]``; weights and bias from U(+-1 / sqrt(n)), torch.nn.Linear's default."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "... n"]) -> Float[Array, "... features"]:
        bound = x.shape[-1] ** -0.5

        def uniform(key: Array, shape: tuple[int, ...]) -> Array:
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

        kernel = self.param("kernel", uniform, (x.shape[-1], self.features))
        return x @ kernel + self.param("bias", uniform, (self.features,))


class MLP(nn.Module):
    """Linear layers ``linear0, linear1, ...`` of the given widths, with ReLU between them, none after the last."""

    features: Sequence[int]

    @nn.compact
    def __call__(self, x: Float[Array, "... n"]) -> Float[Array, "... features"]:
        for i, width in enumerate(self.features):
            x = Linear(width, name=f"linear{i}")(nn.relu(x) if i else x)
        return x
