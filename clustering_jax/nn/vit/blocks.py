"""Parts of pretrained vision transformers, as pure functions of their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clustering_jax.errors import UserError
from clustering_jax.nn.vit.clip import to_patches
from clustering_jax.typing import Array, Float, Int

Params = Mapping[str, Any]
ACTIVATIONS = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "silu": jax.nn.silu,
}


def normalized(images: Int[Array, "n h w 3"], mean: tuple, std: tuple) -> Float[Array, "n h w 3"]:
    """uint8 images as float32 of zero mean and unit variance; mean and std are for pixels in [0, 1]."""
    return (images.astype(jnp.float32) / 255 - jnp.array(mean, jnp.float32)) / jnp.array(std, jnp.float32)


def embed_patches(params: Params, pixels: Float[Array, "n h w 3"], size: int, dtype: Any) -> Float[Array, "n t d"]:
    """One token for each patch of `size` pixels, row by row."""
    height, width = pixels.shape[1:3]
    if height % size or width % size:
        raise UserError(f"images of {height} x {width} pixels can't be cut into patches of {size}: resize them")
    return linear(params, to_patches(pixels, size).astype(dtype))


def with_first(first: Sequence[Float[Array, "k d"]], x: Float[Array, "n t d"]) -> Float[Array, "n s d"]:
    """The tokens `first`, equal for all images, before those of each image."""
    return jnp.concatenate([*(jnp.broadcast_to(y.astype(x.dtype), (x.shape[0], *y.shape)) for y in first), x], 1)


def linear(params: Params, x: Array) -> Array:
    """``x @ kernel + bias`` in the dtype of x; the bias may be absent."""
    y = x @ params["kernel"].astype(x.dtype)
    return y + params["bias"].astype(x.dtype) if "bias" in params else y


def layer_norm(params: Params, x: Array, epsilon: float) -> Array:
    """Normalises the last axis in float32; the result has the dtype of x."""
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, -1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), -1, keepdims=True)
    y = centred * jax.lax.rsqrt(variance + epsilon) * params["scale"] + params["bias"]
    return y.astype(x.dtype)


def self_attention(
    params: Params, x: Float[Array, "n t d"], heads: int, rotate: Callable[[Array], Array] = lambda x: x
) -> Float[Array, "n t d"]:
    """Multi-head self-attention.

    Args:
      params: linear layers `qkv` (queries, keys and values next to each other) and `out`.
      x: tokens [n, t, d].
      heads: number of heads.
      rotate: rotary position encoding of queries and keys [n, heads, t, d / heads].
    """
    n, t, _ = x.shape
    # Heads before tokens: XLA's CPU backend takes twice as long over the products otherwise.
    q, k, v = linear(params["qkv"], x).reshape(n, t, 3, heads, -1).transpose(2, 0, 3, 1, 4)
    return linear(params["out"], attend(rotate(q), rotate(k), v))


def attend(q: Float[Array, "n h q d"], k: Float[Array, "n h t d"], v: Float[Array, "n h t d"]) -> Float[Array, "n q w"]:
    """Scaled dot-product attention, the heads' results next to each other; the softmax is float32."""
    scores = jnp.einsum("nhqd,nhkd->nhqk", q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32)
    y = jnp.einsum("nhqk,nhkd->nqhd", jax.nn.softmax(scores).astype(v.dtype), v)
    return y.reshape(*y.shape[:2], -1)


def mlp(params: Params, x: Array, activation: str) -> Array:
    """``down(activation(up(x)))``, or ``down(activation(gate(x)) * up(x))`` where there is a `gate`."""
    apply, y = ACTIVATIONS[activation], linear(params["up"], x)
    y = apply(linear(params["gate"], x)) * y if "gate" in params else apply(y)
    return linear(params["down"], y)


def resize_positions(grid: Float[Array, "h w d"], shape: tuple[int, int], form: str) -> Float[Array, "t d"]:
    """Position embeddings of a grid of patches, interpolated to another grid as `torch.nn.functional.interpolate`.

    Args:
      grid: one embedding for each patch [h, w, d].
      shape: rows and columns wanted.
      form: a key of `INTERPOLATIONS`.
    """
    if grid.shape[:2] == shape:
        return grid.reshape(-1, grid.shape[-1])
    rows, cols = (jnp.asarray(INTERPOLATIONS[form](a, b)) for a, b in zip(grid.shape, shape, strict=False))
    return jnp.einsum("ah,bw,hwd->abd", rows, cols, grid, precision="highest").reshape(-1, grid.shape[-1])


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys's cubic convolution kernel."""
    x = np.abs(x)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _plain_bicubic(inputs: int, outputs: int) -> np.ndarray:
    """[outputs, inputs]; beyond the border its own value counts."""
    centres = (np.arange(outputs) + 0.5) * inputs / outputs - 0.5
    taps = np.floor(centres)[:, None] + np.arange(-1, 3)
    matrix = np.zeros((outputs, inputs), np.float32)
    rows = np.broadcast_to(np.arange(outputs)[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, inputs - 1).astype(int)), _cubic(centres[:, None] - taps, -0.75))
    return matrix


def _antialiased(kernel: Callable[[np.ndarray], np.ndarray]) -> Callable[[int, int], np.ndarray]:
    def matrix(inputs: int, outputs: int) -> np.ndarray:
        scale = inputs / outputs
        centres = (np.arange(outputs) + 0.5) * scale
        weights = kernel((np.arange(inputs) + 0.5 - centres[:, None]) / max(scale, 1.0))
        return (weights / weights.sum(1, keepdims=True)).astype(np.float32)

    return matrix


INTERPOLATIONS: dict[str, Callable[[int, int], np.ndarray]] = {
    "bicubic": _plain_bicubic,
    "antialiased bicubic": _antialiased(lambda x: _cubic(x, -0.5)),
    "antialiased bilinear": _antialiased(lambda x: np.maximum(1 - np.abs(x), 0)),
}
