"""Linear layers with PyTorch's initialisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from clustering_jax.nn.cpu.product import rounded_product
from clustering_jax.typing import Array, Float


def torch_uniform(inputs: int) -> Callable[..., Array]:
    """Initialiser U(-1/sqrt(inputs), 1/sqrt(inputs)), as `torch.nn.Linear` uses it for its weights and biases."""
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -(inputs**-0.5), inputs**-0.5)


class Linear(nn.Module):
    """Linear layer ``x @ kernel + bias`` with the initialisation of `torch.nn.Linear`: U(-1/sqrt(in), 1/sqrt(in)).

    `flax.linen.Dense` cannot do this, because its bias initialiser does not know the number of inputs.

    Args:
      features: number of outputs; the kernel is [in, features].
      dtype: dtype of the computation. With bfloat16 only the factors of the products are rounded, see
        `rounded_product`.
      std: if above 0, the kernel is drawn from a normal distribution with this standard deviation instead.
    """

    features: int
    dtype: Any = jnp.float32
    std: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
        uniform = torch_uniform(x.shape[-1])
        initial = nn.initializers.normal(self.std) if self.std else uniform
        kernel = self.param("kernel", initial, (x.shape[-1], self.features))
        bias = self.param("bias", uniform, (self.features,))
        if self.dtype == jnp.bfloat16:
            return rounded_product(x, kernel) + bias
        return x.astype(self.dtype) @ kernel.astype(self.dtype) + bias.astype(self.dtype)


class MLP(nn.Module):
    """Linear layers with a ReLU between them and none after the last: ``[*n, in] -> [*n, features[-1]]``.

    The layers are named `linear_0`, `linear_2`, ..., their indices in a `torch.nn.Sequential`, which counts the ReLUs.

    Args:
      features: number of outputs of each layer.
      dtype: dtype of the computation, see `Linear`.
    """

    features: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
        for i, width in enumerate(self.features):
            x = Linear(width, self.dtype, name=f"linear_{2 * i}")(nn.relu(x) if i else x)
        return x
