"""Fast normal noise for many examples.

On XLA's CPU backend, JAX's generators would take longer than the rest of a training step: 250 ms for 6 million numbers.
The hash function below takes 3 ms. It is not a cryptographic generator and does not need to be one.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax, random

from clustering_jax.typing import Array, Int


def example_normal(key: Array, index: Int[Array, " n"], shape: tuple[int, ...]) -> Array:
    """Standard normal numbers for each example. They depend only on `key` and on the index of the example.

    Each example draws 64 bits with `jax.random`. A hash of these bits and of the position in `shape` gives uniform
    numbers, and the inverse of the normal distribution function makes them normal. The hash is two rounds of a 32-bit
    finaliser with low bias.

    Args:
      key: random key.
      index: int [n] index of each example.
      shape: shape of the noise of one example.

    Returns:
      float32 [n, *shape]; absolute values are at most 5.4.

    References:
      C. Wellons, Prospecting for Hash Functions, 2018.
    """
    seeds = jax.vmap(lambda i: random.bits(random.fold_in(key, i), (2,)))(index)
    first, second = seeds.T.reshape(2, len(index), *[1] * (len(shape) - 1))

    def part(places: Array) -> Array:
        words = _mixed(_mixed(places ^ first) + second)
        # 23 bits, at the centres of their intervals, so neither -1 nor 1 can occur.
        uniform = (words >> 9).astype(jnp.float32) * 2**-22 + (2**-23 - 1)
        return math.sqrt(2) * lax.erf_inv(uniform)

    places = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape) * jnp.uint32(0x9E3779B9)
    half = shape[-1] // 2
    # Computed in two halves and concatenated. Otherwise XLA's CPU backend fuses the computation into each use and
    # repeats it there, which doubles the time of DMIM's noise. It does not fuse a concatenation. Concatenating columns
    # leaves the rows on their devices.
    parts = [jnp.concatenate([part(p[..., :half]), part(p[..., half:])], axis=-1) for p in places]
    return jnp.stack(parts, axis=1)


def _mixed(words: Array) -> Array:
    words = (words ^ (words >> 16)) * jnp.uint32(0x7FEB352D)
    words = (words ^ (words >> 15)) * jnp.uint32(0x846CA68B)
    return words ^ (words >> 16)
