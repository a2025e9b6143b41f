"""SigLIP's image transformer (Zhai, Mustafa, Kolesnikov and Beyer, "Sigmoid Loss for Language Image Pre-Training",
ICCV 2023), which SigLIP 2 (Tschannen et al., 2025) keeps.

A pre-norm transformer without class token; a learnt query attends to its outputs (attention pooling) and passes
through one more MLP.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from clustering_jax.nn.vit.blocks import (
    Params,
    attend,
    embed_patches,
    layer_norm,
    linear,
    mlp,
    normalized,
    resize_positions,
    self_attention,
)
from clustering_jax.typing import Array, Float, Int


class SiglipConfig(NamedTuple):
    """The architecture; the defaults are ViT-B/16 at 224 pixels.

    Args:
      width: of the tokens.
      layers: number of blocks.
      heads: of each attention.
      hidden: width inside the MLPs.
      patch_size: pixels of a patch's side.
      grid: rows and columns of the position embeddings.
      activation: key of `blocks.ACTIVATIONS`.
      epsilon: of the layer norms.
      interpolation: of the position embeddings, a key of `blocks.INTERPOLATIONS`.
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    patch_size: int = 16
    grid: tuple[int, int] = (14, 14)
    activation: str = "gelu_pytorch_tanh"
    epsilon: float = 1e-6
    interpolation: str = "bicubic"


def features(
    config: SiglipConfig,
    params: Params,
    images: Int[Array, "n h w 3"],
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: Any = jnp.float32,
) -> Float[Array, "n d"]:
    """The pooled output, which is the image's embedding beside texts; not normalised.

    Args:
      config: the architecture.
      params: `patches`, `positions`, `block_0`, `block_1`, ..., `norm` and `pool`.
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
    x = x + resize_positions(params["positions"], shape, config.interpolation).astype(dtype)
    for i in range(config.layers):
        x = _block(config, params[f"block_{i}"], x)
    return _pool(config, params["pool"], layer_norm(params["norm"], x, config.epsilon)).astype(jnp.float32)


def _block(config: SiglipConfig, params: Params, x: Array) -> Array:
    x = x + self_attention(params, layer_norm(params["norm_1"], x, config.epsilon), config.heads)
    return x + mlp(params, layer_norm(params["norm_2"], x, config.epsilon), config.activation)


def _pool(config: SiglipConfig, params: Params, x: Array) -> Array:
    """Attention of one learnt query to all tokens, then an MLP with a residual connection."""
    n, t, _ = x.shape
    q = linear(params["query"], params["probe"].astype(x.dtype)).reshape(1, 1, config.heads, -1).transpose(0, 2, 1, 3)
    k, v = linear(params["keys_values"], x).reshape(n, t, 2, config.heads, -1).transpose(2, 0, 3, 1, 4)
    y = linear(params["out"], attend(jnp.broadcast_to(q, (n, *q.shape[1:])), k, v)[:, 0])
    return y + mlp(params, layer_norm(params["norm"], y, config.epsilon), config.activation)
