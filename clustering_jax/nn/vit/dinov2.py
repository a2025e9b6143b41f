"""DINOv2's image transformer (Oquab, Darcet, Moutakanni et al., "DINOv2: Learning Robust Visual Features without
Supervision", TMLR 2024), without or with registers (Darcet, Oquab, Mairal and Bojanowski, ICLR 2024).

A pre-norm transformer with layer scale; the features are the class token's output. Images may have any size that is a
multiple of the patch: the position embeddings are interpolated.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from clustering_jax.nn.vit.blocks import (
    Params,
    embed_patches,
    layer_norm,
    mlp,
    normalized,
    resize_positions,
    self_attention,
    with_first,
)
from clustering_jax.typing import Array, Float, Int


class Dinov2Config(NamedTuple):
    """The architecture; the defaults are ViT-S/14 without registers.

    Args:
      width: of the tokens.
      layers: number of blocks.
      heads: of each attention.
      hidden: width inside the MLPs.
      patch_size: pixels of a patch's side.
      grid: rows and columns of the position embeddings.
      registers: number of register tokens.
      gated: whether the MLPs are SwiGLU, as in ViT-g/14.
      activation: key of `blocks.ACTIVATIONS`.
      epsilon: of the layer norms.
      interpolation: of the position embeddings, a key of `blocks.INTERPOLATIONS`.
    """

    width: int = 384
    layers: int = 12
    heads: int = 6
    hidden: int = 1536
    patch_size: int = 14
    grid: tuple[int, int] = (37, 37)
    registers: int = 0
    gated: bool = False
    activation: str = "gelu"
    epsilon: float = 1e-6
    interpolation: str = "bicubic"


def features(
    config: Dinov2Config,
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
      params: `class_token`, `positions` (`class`, `grid`), `patches`, `registers` where there are some, `block_0`,
        `block_1`, ..., and `norm`.
      images: uint8 [n, h, w, 3], RGB; h and w multiples of the patch.
      mean: of the channels in [0, 1].
      std: of the channels in [0, 1].
      dtype: of products and activations; norms and the softmax are float32.

    Returns:
      float32 [n, width].
    """
    size = config.patch_size
    x = embed_patches(params["patches"], normalized(images, mean, std), size, dtype)
    shape = (images.shape[1] // size, images.shape[2] // size)
    x = x + resize_positions(params["positions"]["grid"], shape, config.interpolation).astype(dtype)
    first = [params["class_token"] + params["positions"]["class"], *([params["registers"]] if config.registers else [])]
    x = with_first(first, x)
    for i in range(config.layers):
        x = _block(config, params[f"block_{i}"], x)
    return layer_norm(params["norm"], x[:, 0], config.epsilon).astype(jnp.float32)


def _block(config: Dinov2Config, params: Params, x: Array) -> Array:
    y = self_attention(params, layer_norm(params["norm_1"], x, config.epsilon), config.heads)
    x = x + y * params["scale_1"].astype(x.dtype)
    y = mlp(params, layer_norm(params["norm_2"], x, config.epsilon), "silu" if config.gated else config.activation)
    return x + y * params["scale_2"].astype(x.dtype)
