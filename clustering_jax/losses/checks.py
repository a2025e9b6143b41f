"""Checks of the arguments of the losses, and rescaling that avoids overflow."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from clustering_jax.parallel import axis_size
from clustering_jax.typing import Array

# Rows and columns smaller than this count as zero, because their gradient, about 1 / size, would overflow float32.
_NEGLIGIBLE = 1e-30


def checked_batch(name: str, axis_name: str | None, *arrays: Array) -> list[Array]:
    """`checked`, and requires two rows or more over all devices."""
    batch = checked(name, *arrays)
    if len(batch[0]) * axis_size(axis_name) < 2:
        raise ValueError(f"{name}: needs a batch of 2 or more, got {shapes(arrays)}")
    return batch


def checked(name: str, *arrays: Array) -> list[Array]:
    """Checks that the arrays are floating point [n, d] of one shape; converts them to one dtype, at least float32."""
    if len({jnp.shape(x) for x in arrays}) > 1 or jnp.ndim(arrays[0]) != 2:
        rule = "rank 2" if len(arrays) == 1 else "rank 2 and equal shapes"
        raise ValueError(f"{name}: needs {rule}, got {shapes(arrays)}")
    types = [jnp.result_type(x) for x in arrays]
    if not all(jnp.issubdtype(t, jnp.floating) for t in types):
        names = " and ".join(map(str, types))
        raise ValueError(f"{name}: needs floating point, got {names} of shape {shapes(arrays)}")
    common = jnp.result_type(jnp.float32, *types)
    return [jnp.asarray(x, common) for x in arrays]


def shapes(arrays: tuple[Array, ...]) -> str:
    """The shapes as text, for error messages."""
    return " and ".join(str(jnp.shape(x)) for x in arrays)


def rescaled(x: Array, size: Array) -> tuple[Array, Array]:
    """``(x / size, size is not negligible)``, for functions of `x` that do not depend on its scale.

    When clusters collapse, columns of size 1e-18 are common. Their squares underflow, and the gradient of rsqrt
    overflows. No gradient flows through `size`, which is correct for functions that do not depend on the scale.
    """
    nonzero = size > _NEGLIGIBLE
    return x / lax.stop_gradient(jnp.where(nonzero, size, 1)), nonzero
