"""CLIP's image and text transformers (Radford, Kim, Hallacy et al., "Learning Transferable Visual Models From Natural
Language Supervision", ICML 2021).

Both are pre-norm transformers. The image's patches and a class token pass through one, and the class token's output
is projected; the text's tokens pass through the other under a causal mask, and the end token's output is projected.
Given published weights (`clip_weights.load_clip`) the features are those of Hugging Face's CLIPModel.

On accelerators XLA multiplies float32 in fewer bits unless `jax_default_matmul_precision` is "highest".
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
# OpenAI's configs on the Hugging Face hub say 2, which is not their end token: it stands for the largest id of the row.
LARGEST_ID = 2


class Tower(NamedTuple):
    """One transformer: `hidden` is the width inside its MLPs, `activation` a key of `ACTIVATIONS`."""

    width: int
    layers: int
    heads: int
    hidden: int
    activation: str = "quick_gelu"
    epsilon: float = 1e-5  # of the layer norms


class ClipConfig(NamedTuple):
    """What a CLIP model is, apart from its weights; the defaults are OpenAI's at 224 pixels.

    Args:
      embed_dim: of the space that images and texts share.
      image_size, patch_size: pixels; a row of patches is ``image_size // patch_size`` long.
      resize: pixels of the image's shorter side before the centre of `image_size` is cut out.
      eos_token_id: the end token; `LARGEST_ID` takes the largest id of each row for it.
      mean, std: of the channels red, green, blue in [0, 1].
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
    """Both towers; features are float32 and not normalised.

    Args:
      dtype: of products and activations. Parameters, norms' statistics and the softmax are float32.
      remat: blocks are computed again in the backward pass instead of being kept.
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
        """Of uint8 images [n, image_size, image_size, 3], RGB."""
        return self.vision(images)

    def text_features(self, ids: Int[Array, "n t"]) -> Float[Array, "n d"]:
        """Of token ids [n, t], t at most `context_length`; what follows a row's end token does not count."""
        return self.text(ids)


class ImageTower(nn.Module):
    """uint8 [n, s, s, 3] to float32 [n, embed_dim]."""

    config: ClipConfig
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, images: Int[Array, "n s s 3"]) -> Float[Array, "n d"]:
        config, tower = self.config, self.config.vision
        if images.shape[1:] != (config.image_size, config.image_size, 3):
            raise UserError(
                f"images are {list(images.shape)}: CLIP wants [n, {config.image_size}, {config.image_size}, 3]"
            )
        pixels = to_patches(images, config.patch_size).astype(jnp.float32) / 255
        mean, std = (jnp.tile(jnp.array(x, jnp.float32), config.patch_size**2) for x in (config.mean, config.std))
        x = _dense(tower.width, self.dtype, "patch_embedding", bias=False)((pixels - mean) / std)
        first = self.param("class_embedding", nn.initializers.normal(0.02), (tower.width,))
        x = jnp.concatenate([jnp.broadcast_to(first.astype(self.dtype), (len(x), 1, tower.width)), x], 1)
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
            raise UserError(f"token ids are {list(ids.shape)}: CLIP wants [n, {config.context_length}] or shorter rows")
        normal = nn.initializers.normal(0.02)
        tokens = self.param("token_embedding", normal, (config.vocab_size, tower.width))
        places = self.param("position_embedding", normal, (config.context_length, tower.width))
        x = (tokens[ids] + places[: ids.shape[1]]).astype(self.dtype)
        x = Transformer(tower, True, self.dtype, self.remat, name="transformer")(x)
        x = x[jnp.arange(len(x)), end_positions(ids, config.eos_token_id)]
        x = _norm(tower, self.dtype, "norm_final")(x)
        return _dense(config.embed_dim, self.dtype, "projection", bias=False)(x).astype(jnp.float32)


class Transformer(nn.Module):
    """`tower.layers` blocks, `block_0`, `block_1`, ...: [n, t, width] to the same."""

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
    """Self-attention and an MLP, each normalised before and added to what came in."""

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
    """[n, h, w, c] to [n, patches, size * size * c], patches row by row: what a convolution of stride `size` sees."""
    n, h, w, c = images.shape
    grid = images.reshape(n, h // size, size, w // size, size, c).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(n, -1, size * size * c)


def attend(qkv: Float[Array, "n t 3w"], heads: int, causal: bool) -> Float[Array, "n t w"]:
    """Scaled dot-product attention of [queries, keys, values]; `causal` hides from each token those after it."""
    n, t, width = qkv.shape
    # Heads before tokens: XLA's CPU backend takes twice as long over the products otherwise.
    q, k, v = qkv.reshape(n, t, 3, heads, width // (3 * heads)).transpose(2, 0, 3, 1, 4)
    scores = jnp.einsum("nhqd,nhkd->nhqk", q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32)
    if causal:
        scores = jnp.where(jnp.tri(t, dtype=bool), scores, -jnp.inf)
    weights = jax.nn.softmax(scores).astype(v.dtype)
    return jnp.einsum("nhqk,nhkd->nqhd", weights, v).reshape(n, t, width // 3)


def end_positions(ids: Int[Array, "n t"], eos_token_id: int) -> Int[Array, " n"]:
    """Place of each row's first end token; of the first largest id where `eos_token_id` is `LARGEST_ID`."""
    return jnp.argmax(ids if eos_token_id == LARGEST_ID else ids == eos_token_id, -1)


def _dense(features: int, dtype: Any, name: str, *, bias: bool = True) -> nn.Dense:
    return nn.Dense(features, bias, dtype=dtype, name=name)


def _norm(tower: Tower, dtype: Any, name: str) -> nn.LayerNorm:
    # Some channels of CLIP are a hundred times the others: E[x^2] - E[x]^2 would lose the small ones.
    return nn.LayerNorm(tower.epsilon, dtype=dtype, use_fast_variance=False, name=name)
