"""Linear layers that start as PyTorch's do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from clustering_jax.nn.cpu.product import rounded_product
from clustering_jax.typing import Array, Float


def torch_uniform(inputs: int) -> Callable[..., Array]:
    """Initialiser of U(-1/sqrt(inputs), 1/sqrt(inputs)), which `torch.nn.Linear` has for weights and biases."""
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -(inputs**-0.5), inputs**-0.5)


class Linear(nn.Module):
    """`x @ kernel + bias`, kernel [in, features], both drawn from U(-1/sqrt(in), 1/sqrt(in)) as `torch.nn.Linear`'s.

    `flax.linen.Dense` cannot: its bias initialiser does not see the number of inputs.

    dtype: of the arithmetic; bfloat16 is that of the products' factors alone, see `rounded_product`.
    std: above 0, the kernel is drawn from N(0, std) instead.
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
    """Linear layers with a ReLU between each two, none after the last: ``[*n, in] -> [*n, features[-1]]``.

    The layers are `linear_0`, `linear_2`, ...: their places in the `torch.nn.Sequential` that counts the ReLUs too.
    """

    features: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
        for i, width in enumerate(self.features):
            x = Linear(width, self.dtype, name=f"linear_{2 * i}")(nn.relu(x) if i else x)
        return x
