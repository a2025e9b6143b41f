"""Normal noise for many examples, cheap enough for every step.

JAX's generators take longer than the rest of a step on XLA's CPU backend: 250 ms for 6 million numbers where the hash
below takes 3. It is no cryptographic generator and need not be.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax, random

from clustering_jax.typing import Array, Int


def example_normal(key: Array, index: Int[Array, " n"], shape: tuple[int, ...]) -> Array:
    """Standard normal float32 [n, *shape]; what an example gets depends on `key` and its `index` alone.

    Each example has 64 bits of `jax.random`, from which its numbers are hashed by their places (two rounds of a 32-bit
    finaliser of low bias, C. Wellons, Prospecting for Hash Functions, 2018) and taken through the inverse normal
    distribution. They lie within 5.4.
    """
    seeds = jax.vmap(lambda i: random.bits(random.fold_in(key, i), (2,)))(index)
    first, second = seeds.T.reshape(2, len(index), *[1] * (len(shape) - 1))

    def part(places: Array) -> Array:
        words = _mixed(_mixed(places ^ first) + second)
        # 23 bits, at the middles of their intervals: neither end of (-1, 1) is hit.
        uniform = (words >> 9).astype(jnp.float32) * 2**-22 + (2**-23 - 1)
        return math.sqrt(2) * lax.erf_inv(uniform)

    places = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape) * jnp.uint32(0x9E3779B9)
    half = shape[-1] // 2
    # By halves, as XLA's CPU backend else fuses the drawing into each use of a part and repeats it there: half of what
    # DMIM's noise takes. A concatenation it doesn't fuse, and one of columns leaves the rows on their devices.
    parts = [jnp.concatenate([part(p[..., :half]), part(p[..., half:])], axis=-1) for p in places]
    return jnp.stack(parts, axis=1)


def _mixed(words: Array) -> Array:
    words = (words ^ (words >> 16)) * jnp.uint32(0x7FEB352D)
    words = (words ^ (words >> 15)) * jnp.uint32(0x846CA68B)
    return words ^ (words >> 16)
