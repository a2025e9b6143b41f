"""DINOv3's image transformer (Siméoni, Vo, Seitzer et al., "DINOv3", 2025).

A pre-norm transformer with registers, layer scale and rotary position encoding of the patches; the features are the
class token's output. Images may have any size that is a multiple of the patch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from clustering_jax.nn.vit.blocks import Params, embed_patches, layer_norm, mlp, normalized, self_attention, with_first
from clustering_jax.typing import Array, Float, Int


class Dinov3Config(NamedTuple):
    """The architecture; the defaults are ViT-S/16.

    Args:
      width: of the tokens.
      layers: number of blocks.
      heads: of each attention.
      hidden: width inside the MLPs.
      patch_size: pixels of a patch's side.
      registers: number of register tokens.
      gated: whether the MLPs have a gate.
      activation: key of `blocks.ACTIVATIONS`.
      epsilon: of the layer norms.
      rope_base: ratio of the longest to the shortest period of the rotary encoding.
    """

    width: int = 384
    layers: int = 12
    heads: int = 6
    hidden: int = 1536
    patch_size: int = 16
    registers: int = 4
    gated: bool = False
    activation: str = "gelu"
    epsilon: float = 1e-5
    rope_base: float = 100.0


def features(
    config: Dinov3Config,
    params: Params,
    images: Int[Array, "n h w 3"],
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: Any = jnp.float32,
) -> Float[Array, "n d"]:
    """The class token's output after the last norm.

    Args:
      config: the architecture.
      params: `class_token`, `registers`, `patches`, `block_0`, `block_1`, ..., and `norm`.
      images: uint8 [n, h, w, 3], RGB; h and w multiples of the patch.
      mean: of the channels in [0, 1].
      std: of the channels in [0, 1].
      dtype: of products and activations; norms and the softmax are float32.

    Returns:
      float32 [n, width].
    """
    size = config.patch_size
    x = embed_patches(params["patches"], normalized(images, mean, std), size, dtype)
    angles = _angles(config, images.shape[1] // size, images.shape[2] // size)
    x = with_first([params["class_token"], *([params["registers"]] if config.registers else [])], x)
    for i in range(config.layers):
        x = _block(config, params[f"block_{i}"], x, angles)
    return layer_norm(params["norm"], x[:, 0], config.epsilon).astype(jnp.float32)


def _block(config: Dinov3Config, params: Params, x: Array, angles: np.ndarray) -> Array:
    y = layer_norm(params["norm_1"], x, config.epsilon)
    y = self_attention(params, y, config.heads, lambda z: _rotate(z, angles))
    x = x + y * params["scale_1"].astype(x.dtype)
    y = mlp(params, layer_norm(params["norm_2"], x, config.epsilon), config.activation)
    return x + y * params["scale_2"].astype(x.dtype)


def _angles(config: Dinov3Config, rows: int, cols: int) -> np.ndarray:
    """[rows * cols, d / 2] of a head's d channels: of each patch's centre, (y, x) in [-1, 1]."""
    head = config.width // config.heads
    frequencies = 2 * np.pi * config.rope_base ** -np.arange(0, 1, 4 / head)
    centres = [2 * (np.arange(n) + 0.5) / n - 1 for n in (rows, cols)]
    grid = np.stack(np.meshgrid(*centres, indexing="ij"), -1).reshape(-1, 2, 1)
    return (grid * frequencies).reshape(len(grid), -1)


def _rotate(x: Float[Array, "n h t d"], angles: np.ndarray) -> Float[Array, "n h t d"]:
    """Turns the pairs (i, i + d / 2) of each patch's channels; the tokens before the patches stay."""
    first, patches = jnp.split(x, [x.shape[2] - len(angles)], 2)
    a, b = jnp.split(patches, 2, -1)
    cos, sin = (jnp.asarray(f(angles), x.dtype) for f in (np.cos, np.sin))
    return jnp.concatenate([first, jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)], 2)
