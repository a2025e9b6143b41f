"""EfficientNet-Lite0 for inference (Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", ICML 2019; the Lite variant has ReLU6 and no squeeze-and-excitation).

Pure functions of a parameter tree whose batch norms are folded into the convolutions: `stem`, `block_0` to `block_15`
(`expand`, `depthwise`, `project`), `head` and `classifier`, each with `kernel` and `bias`. 1x1 convolutions are
matrix products, and depthwise convolutions have a form of their own on the CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from clustering_jax.nn.chunks import chunked
from clustering_jax.nn.cpu.depthwise import depthwise, same_padding
from clustering_jax.typing import Array, Float, Int

IMAGE_SIZE = 224
WIDTH = 1280
CLASSES = 1000
MEAN, STD = 127.0, 128.0  # of the pixels in [0, 255], all channels
CHUNK = 4


class Stage(NamedTuple):
    """Equal blocks in a row; only the first has the stride.

    Args:
      repeats: number of blocks.
      size: of the depthwise kernel.
      stride: of the first block's depthwise convolution.
      expansion: channels inside a block for each channel that enters it; 1 leaves the expansion out.
      features: channels that leave each block.
    """

    repeats: int
    size: int
    stride: int
    expansion: int
    features: int


STEM = 32
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
STRIDES = tuple(stage.stride if i == 0 else 1 for stage in STAGES for i in range(stage.repeats))


def features(params: Mapping[str, Any], images: Int[Array, "n h w 3"]) -> Float[Array, "n 1280"]:
    """Globally averaged features of uint8 images [n, h, w, 3], RGB, as float32 [n, 1280].

    On the CPU the images pass `CHUNK` at a time, so that a block's activations stay in the cache.
    """
    cpu = chunked(functools.partial(_features, params), CHUNK)
    return lax.platform_dependent(images, cpu=cpu, default=functools.partial(_features, params))


def _features(params: Mapping[str, Any], images: Array) -> Array:
    x = (images.astype(jnp.float32) - MEAN) / STD
    x = _relu6(_stem(params["stem"], x))
    for i, stride in enumerate(STRIDES):
        x = _block(params[f"block_{i}"], x, stride)
    return jnp.mean(_relu6(_linear(params["head"], x)), (1, 2))


def logits(params: Mapping[str, Any], rows: Float[Array, "n 1280"]) -> Float[Array, "n 1000"]:
    """Scores of ImageNet's 1,000 classes from `features`."""
    return _linear(params["classifier"], rows)


def _block(params: Mapping[str, Any], x: Array, stride: int) -> Array:
    """Expansion, depthwise convolution and projection; added to the input where the shapes agree."""
    y = _relu6(_linear(params["expand"], x)) if "expand" in params else x
    y = depthwise(y, params["depthwise"]["kernel"], stride) + params["depthwise"]["bias"]
    y = _linear(params["project"], _relu6(y))
    return x + y if y.shape == x.shape else y


def _stem(params: Mapping[str, Any], x: Array) -> Array:
    """3x3 convolution with stride 2."""
    pads = [same_padding(size, 3, 2) for size in x.shape[1:3]]
    y = lax.conv_general_dilated(x, params["kernel"], (2, 2), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y + params["bias"]


def _linear(params: Mapping[str, Any], x: Array) -> Array:
    return x @ params["kernel"] + params["bias"]


def _relu6(x: Array) -> Array:
    return jnp.clip(x, 0, 6)
