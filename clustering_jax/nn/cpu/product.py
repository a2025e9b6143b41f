"""Matrix products in bfloat16 that are added up in float32, forward and backward."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.typing import Array, Float


@jax.custom_vjp
def rounded_product(x: Float[Array, "n i"], kernel: Float[Array, "i o"]) -> Float[Array, "n o"]:
    """``x @ kernel`` in float32, all factors rounded to bfloat16 first; those of the gradients' products too.

    The precision that a TPU has by default. JAX's own gradient would multiply float32 by bfloat16, at the slower one's
    speed.
    """
    return _forward(x, kernel)[0]


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    return _product(x, kernel, 1, 0), (x, kernel)


def _backward(saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    (x, kernel), dy = saved, dy.astype(jnp.bfloat16)
    transposed = lax.platform_dependent(x, cpu=_transposed_by_halves, default=jnp.transpose)
    return _product(dy, kernel, 1, 1), _product(transposed, dy, 1, 0)


def _transposed_by_halves(x: Array) -> Array:
    """Of one transpose and a product XLA makes a product over first axes, which CPUs have in float32 alone.

    That is half as fast, or (mapped over seeds) fails.
    """
    half = len(x) // 2
    return jnp.concatenate([x[:half].T, x[half:].T], axis=1)


def _product(x: Array, y: Array, i: int, j: int) -> Array:
    """The sum over axis i of x and j of y."""
    return lax.dot_general(x, y, (((i,), (j,)), ((), ())), preferred_element_type=jnp.float32)


rounded_product.defvjp(_forward, _backward)
