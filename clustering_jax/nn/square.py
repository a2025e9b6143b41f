"""An autoencoder of square grey images that are given as rows of pixels."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from clustering_jax.errors import UserError
from clustering_jax.nn.mlp import Linear, torch_uniform
from clustering_jax.typing import Array, Float

CHANNELS = (32, 64, 128)


def side_of(width: int) -> int:
    """The side of an image of `width` pixels.

    Raises:
      UserError: `width` is no square of 8 or more.
    """
    side = math.isqrt(width)
    if side * side != width or side < 8:
        raise UserError(
            f"a view has {width} columns, which are no square image of 8 pixels or more: set --config.model.body=mlp"
        )
    return side


def sides(width: int) -> list[int]:
    """Sides of the image and of the result of each convolution."""
    found = [side_of(width)]
    for _ in CHANNELS:
        found.append((found[-1] + 1) // 2)
    return found


class SquareEncoder(nn.Module):
    """Three 3x3 convolutions of stride 2 with ReLU, and a linear layer: ``[n, side * side] -> [n, features]``.

    Args:
      features: number of outputs.
      dtype: dtype of the computation.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n features"]:
        side = side_of(x.shape[1])
        x = x.reshape(-1, side, side, 1)
        for i, channels in enumerate(CHANNELS):
            uniform = torch_uniform(9 * x.shape[-1])
            conv = nn.Conv(
                channels, (3, 3), 2, 1, dtype=self.dtype, kernel_init=uniform, bias_init=uniform, name=f"conv_{i}"
            )
            x = nn.relu(conv(x))
        return Linear(self.features, self.dtype, name="linear")(x.reshape(len(x), -1)).astype(jnp.float32)


class SquareDecoder(nn.Module):
    """The mirror of `SquareEncoder`: ``[n, features] -> [n, width]``, with a sigmoid at the end.

    Args:
      width: number of pixels, a square.
      dtype: dtype of the computation.
    """

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: Float[Array, "n features"]) -> Float[Array, "n width"]:
        found = sides(self.width)
        x = nn.relu(Linear(found[-1] ** 2 * CHANNELS[-1], self.dtype, name="linear")(z))
        x = x.reshape(-1, found[-1], found[-1], CHANNELS[-1])
        for i, (channels, small, large) in enumerate(
            zip((*CHANNELS[-2::-1], 1), found[:0:-1], found[-2::-1], strict=True)
        ):
            # The transpose of a convolution of stride 2; an even side needs one more row and column at the end.
            padding = (1, 1 + large - (2 * small - 1))
            uniform = torch_uniform(9 * channels)
            conv = nn.ConvTranspose(
                channels,
                (3, 3),
                (2, 2),
                (padding, padding),
                dtype=self.dtype,
                kernel_init=uniform,
                bias_init=uniform,
                name=f"conv_{i}",
            )
            x = conv(nn.relu(x) if i else x)
        return nn.sigmoid(x.reshape(len(x), -1)).astype(jnp.float32)
