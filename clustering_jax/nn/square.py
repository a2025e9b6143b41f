"""An autoencoder of square grey images that are given as rows of pixels."""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.errors import UserError
from clustering_jax.nn.cpu.conv import DIMENSIONS, conv
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
            layer = nn.Conv(
                channels, (3, 3), 2, 1, dtype=self.dtype, kernel_init=uniform, bias_init=uniform, name=f"conv_{i}"
            )
            x = nn.relu(layer(x))
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
        for i, (channels, side) in enumerate(zip((*CHANNELS[-2::-1], 1), found[-2::-1], strict=True)):
            x = _Transposed(channels, side, self.dtype, name=f"conv_{i}")(nn.relu(x) if i else x)
        return nn.sigmoid(x.reshape(len(x), -1)).astype(jnp.float32)


class _Transposed(nn.Module):
    """`transposed` and a bias, with the parameters of `flax.linen.ConvTranspose`."""

    channels: int
    side: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w cin"]) -> Float[Array, "n side side channels"]:
        uniform = torch_uniform(9 * self.channels)
        kernel = self.param("kernel", uniform, (3, 3, x.shape[-1], self.channels))
        bias = self.param("bias", uniform, (self.channels,))
        return transposed(self.side, x.astype(self.dtype), kernel.astype(self.dtype)) + bias.astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def transposed(
    side: int, x: Float[Array, "n h w cin"], kernel: Float[Array, "3 3 cin cout"]
) -> Float[Array, "n side side cout"]:
    """The transpose of a 3x3 convolution of stride 2 and padding 1, which halves images of `side` pixels.

    Its gradients are the convolution itself and the convolution's gradient of the kernel. On the CPU, XLA takes five
    times as long for the gradients that JAX derives from a dilated convolution.

    Args:
      side: side of the results, ``2 h - 1`` or ``2 h``.
      x: square images [n, h, h, cin].
      kernel: weights as in `flax.linen.ConvTranspose`, [3, 3, cin, cout].
    """
    # An even side needs one more row and column at the end.
    padding = (1, 2 + side - 2 * x.shape[1])
    return lax.conv_transpose(x, kernel, (2, 2), [padding] * 2, dimension_numbers=DIMENSIONS)


def _halve(images: Array, kernel: Array) -> Array:
    """The convolution of which `transposed` is the transpose."""
    return conv(images, kernel[::-1, ::-1].swapaxes(2, 3), 2, 1, lowering="native")


def _transposed_fwd(side: int, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return transposed(side, x, kernel), (x, kernel)


def _transposed_bwd(side: int, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    dx, kernel_grad = jax.vjp(functools.partial(_halve, dy), kernel)
    return dx, *kernel_grad(x)


transposed.defvjp(_transposed_fwd, _transposed_bwd)
