"""Matrix products of bfloat16 factors with float32 sums, in the forward and in the backward pass."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.typing import Array, Float


@jax.custom_vjp
def rounded_product(x: Float[Array, "n i"], kernel: Float[Array, "i o"]) -> Float[Array, "n o"]:
    """``x @ kernel`` with factors rounded to bfloat16 and a float32 result. The gradients are computed the same way.

    This is the default precision of a TPU. JAX's own gradient would multiply float32 by bfloat16, which is as slow as a
    float32 product.
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
    """Transposes `x` in two halves, which XLA does not fuse into the next product.

    XLA would turn one transpose and the product into a product over the first axes. On CPUs this exists only in
    float32: it is half as fast, and with `jax.vmap` over seeds it fails.
    """
    half = len(x) // 2
    return jnp.concatenate([x[:half].T, x[half:].T], axis=1)


def _product(x: Array, y: Array, i: int, j: int) -> Array:
    """Product of `x` and `y` with a float32 result: the sum over axis `i` of `x` and axis `j` of `y`."""
    return lax.dot_general(x, y, (((i,), (j,)), ((), ())), preferred_element_type=jnp.float32)


rounded_product.defvjp(_forward, _backward)
