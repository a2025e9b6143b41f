"""CLIP's image and text transformers.

Both are pre-norm transformers. The image transformer reads a class token and the patches, and the output of the class
token is projected. The text transformer reads the tokens with a causal mask, and the output of the end token is
projected. With published weights (`clip_weights.load_clip`) the features equal those of Hugging Face's CLIPModel.

On accelerators XLA multiplies float32 with reduced precision unless `jax_default_matmul_precision` is "highest".

References:
  Radford, Kim, Hallacy et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from clustering_jax.errors import UserError
from clustering_jax.typing import Array, Float, Int

ACTIVATIONS = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}
# Value of `eos_token_id` in OpenAI's configs on the Hugging Face hub. It is not the id of the end token. It means that
# the end token is the largest id of the row.
LARGEST_ID = 2


class Tower(NamedTuple):
    """Sizes of one transformer.

    Args:
      width: width of the tokens.
      layers: number of blocks.
      heads: number of attention heads.
      hidden: width inside the MLPs.
      activation: a key of `ACTIVATIONS`.
      epsilon: epsilon of the layer norms.
    """

    width: int
    layers: int
    heads: int
    hidden: int
    activation: str = "quick_gelu"
    epsilon: float = 1e-5


class ClipConfig(NamedTuple):
    """Everything about a CLIP model except its weights. The defaults are those of OpenAI's models for 224 pixels.

    Args:
      vision: transformer of the images.
      text: transformer of the texts.
      embed_dim: dimension of the space that images and texts share.
      patch_size: side of a patch in pixels. A row has ``image_size // patch_size`` patches.
      image_size: side of the images in pixels.
      resize: length in pixels to which the shorter side of an image is resized before its centre is cropped to
        `image_size`.
      context_length: largest number of tokens in a text.
      vocab_size: number of token ids.
      eos_token_id: id of the end token. With `LARGEST_ID` the end token is the largest id of each row.
      mean: means of the channels red, green and blue, for images in [0, 1].
      std: standard deviations of these channels.
    """

    vision: Tower
    text: Tower
    embed_dim: int
    patch_size: int
    image_size: int = 224
    resize: int = 224
    context_length: int = 77
    vocab_size: int = 49408
    eos_token_id: int = LARGEST_ID
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)


_BASE = Tower(768, 12, 12, 3072), Tower(512, 12, 8, 2048)
CONFIGS = {
    "ViT-B/32": ClipConfig(*_BASE, embed_dim=512, patch_size=32),
    "ViT-B/16": ClipConfig(*_BASE, embed_dim=512, patch_size=16),
    "ViT-L/14": ClipConfig(Tower(1024, 24, 16, 4096), Tower(768, 12, 12, 3072), embed_dim=768, patch_size=14),
}


class CLIP(nn.Module):
    """Image and text transformer. The features are float32 and not normalised.

    Args:
      config: sizes of the model.
      dtype: dtype of the products and activations. Parameters, the statistics of the norms and the softmax are float32.
      remat: rematerialisation: compute the blocks again in the backward pass instead of storing their activations.
    """

    config: ClipConfig
    dtype: Any = jnp.float32
    remat: bool = False

    def setup(self) -> None:
        self.vision = ImageTower(self.config, self.dtype, self.remat)
        self.text = TextTower(self.config, self.dtype, self.remat)

    def __call__(self, images: Array, ids: Array) -> tuple[Array, Array]:
        return self.vision(images), self.text(ids)

    def image_features(self, images: Int[Array, "n s s 3"]) -> Float[Array, "n d"]:
        """Features [n, embed_dim] of RGB images, uint8 [n, image_size, image_size, 3]."""
        return self.vision(images)

    def text_features(self, ids: Int[Array, "n t"]) -> Float[Array, "n d"]:
        """Features [n, embed_dim] of token ids [n, t], with t at most `context_length`.

        Tokens after the end token of a row have no effect.
        """
        return self.text(ids)


class ImageTower(nn.Module):
    """Image transformer: uint8 [n, s, s, 3] to float32 [n, embed_dim]."""

    config: ClipConfig
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, images: Int[Array, "n s s 3"]) -> Float[Array, "n d"]:
        config, tower = self.config, self.config.vision
        if images.shape[1:] != (config.image_size, config.image_size, 3):
            raise UserError(
                f"images are {list(images.shape)}: CLIP expects [n, {config.image_size}, {config.image_size}, 3]"
            )
        pixels = to_patches(images, config.patch_size).astype(jnp.float32) / 255
        mean, std = (jnp.tile(jnp.array(x, jnp.float32), config.patch_size**2) for x in (config.mean, config.std))
        x = _dense(tower.width, self.dtype, "patch_embedding", bias=False)((pixels - mean) / std)
        first = self.param("class_embedding", nn.initializers.normal(0.02), (tower.width,))
        x = jnp.concatenate([jnp.broadcast_to(first.astype(self.dtype), (x.shape[0], 1, tower.width)), x], 1)
        x = x + self.param("position_embedding", nn.initializers.normal(0.02), x.shape[1:]).astype(self.dtype)
        x = _norm(tower, self.dtype, "norm_pre")(x)
        x = Transformer(tower, False, self.dtype, self.remat, name="transformer")(x)
        x = _norm(tower, self.dtype, "norm_post")(x[:, 0])
        return _dense(config.embed_dim, self.dtype, "projection", bias=False)(x).astype(jnp.float32)


class TextTower(nn.Module):
    """Token ids [n, t] to float32 [n, embed_dim]."""

    config: ClipConfig
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, ids: Int[Array, "n t"]) -> Float[Array, "n d"]:
        config, tower = self.config, self.config.text
        if ids.ndim != 2 or ids.shape[1] > config.context_length:
            raise UserError(
                f"token ids are {list(ids.shape)}: CLIP expects [n, {config.context_length}] or shorter rows"
            )
        normal = nn.initializers.normal(0.02)
        tokens = self.param("token_embedding", normal, (config.vocab_size, tower.width))
        places = self.param("position_embedding", normal, (config.context_length, tower.width))
        x = (tokens[ids] + places[: ids.shape[1]]).astype(self.dtype)
        x = Transformer(tower, True, self.dtype, self.remat, name="transformer")(x)
        x = x[jnp.arange(len(x)), end_positions(ids, config.eos_token_id)]
        x = _norm(tower, self.dtype, "norm_final")(x)
        return _dense(config.embed_dim, self.dtype, "projection", bias=False)(x).astype(jnp.float32)


class Transformer(nn.Module):
    """`tower.layers` blocks, named `block_0`, `block_1`, ...: [n, t, width] to [n, t, width]."""

    tower: Tower
    causal: bool
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: Float[Array, "n t w"]) -> Float[Array, "n t w"]:
        block = nn.remat(Block) if self.remat else Block
        for i in range(self.tower.layers):
            x = block(self.tower, self.causal, self.dtype, name=f"block_{i}")(x)
        return x


class Block(nn.Module):
    """Pre-norm self-attention and MLP, each with a residual connection."""

    tower: Tower
    causal: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n t w"]) -> Float[Array, "n t w"]:
        width, dtype = self.tower.width, self.dtype
        y = _dense(3 * width, dtype, "qkv")(_norm(self.tower, dtype, "norm_1")(x))
        x = x + _dense(width, dtype, "out")(attend(y, self.tower.heads, self.causal))
        y = _dense(self.tower.hidden, dtype, "mlp_in")(_norm(self.tower, dtype, "norm_2")(x))
        return x + _dense(width, dtype, "mlp_out")(ACTIVATIONS[self.tower.activation](y))


def to_patches(images: Array, size: int) -> Array:
    """Cuts images [n, h, w, c] into patches [n, patches, size * size * c], row by row.

    A product with these patches is a convolution with stride `size`.
    """
    n, h, w, c = images.shape
    grid = images.reshape(n, h // size, size, w // size, size, c).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(n, -1, size * size * c)


def attend(qkv: Float[Array, "n t 3w"], heads: int, causal: bool) -> Float[Array, "n t w"]:
    """Scaled dot-product attention of concatenated queries, keys and values.

    Args:
      qkv: [n, t, 3 width].
      heads: number of heads.
      causal: whether each token attends only to itself and to the tokens before it.

    Returns:
      [n, t, width].
    """
    n, t, width = qkv.shape
    # Heads before tokens: otherwise the products take twice as long on XLA's CPU backend.
    q, k, v = qkv.reshape(n, t, 3, heads, width // (3 * heads)).transpose(2, 0, 3, 1, 4)
    scores = jnp.einsum("nhqd,nhkd->nhqk", q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32)
    if causal:
        scores = jnp.where(jnp.tri(t, dtype=bool), scores, -jnp.inf)
    weights = jax.nn.softmax(scores).astype(v.dtype)
    return jnp.einsum("nhqk,nhkd->nqhd", weights, v).reshape(n, t, width // 3)


def end_positions(ids: Int[Array, "n t"], eos_token_id: int) -> Int[Array, " n"]:
    """Position of the first end token in each row. If `eos_token_id` is `LARGEST_ID`, it is the first largest id."""
    return jnp.argmax(ids if eos_token_id == LARGEST_ID else ids == eos_token_id, -1)


def _dense(features: int, dtype: Any, name: str, *, bias: bool = True) -> nn.Dense:
    return nn.Dense(features, bias, dtype=dtype, name=name)


def _norm(tower: Tower, dtype: Any, name: str) -> nn.LayerNorm:
    # Some channels of CLIP are a hundred times as large as others. E[x^2] - E[x]^2 would be inaccurate for them.
    return nn.LayerNorm(tower.epsilon, dtype=dtype, use_fast_variance=False, name=name)
