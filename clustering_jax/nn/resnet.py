"""ResNet-18, -34 and -50 in torchvision's layout (He, Zhang, Ren and Sun, "Deep Residual Learning for Image
Recognition", CVPR 2016; the bottleneck carries its stride on the 3x3 convolution, as torchvision's does).

Given torchvision's weights it is torchvision's function, in training and in evaluation mode, running statistics
included. Its variables carry torchvision's names, with `_0` for `.0`: params `conv1/kernel`, `bn1/scale`, `bn1/bias`,
`layer1_0/conv1/kernel`, `layer2_0/downsample_0/kernel` (convolution), `layer2_0/downsample_1/scale` (norm), and
batch_stats `bn1/mean`, `bn1/var`, ... Kernels are [kh, kw, in, out].
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from clustering_jax.errors import UserError, nearest
from clustering_jax.nn.cpu.conv import conv
from clustering_jax.nn.cpu.pool import max_pool
from clustering_jax.nn.norm import BatchNorm
from clustering_jax.typing import Array, Float

# Blocks in each of the four stages, and whether they are bottlenecks.
DEPTHS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
}
# Size and stride of the first convolution, and whether a max-pool follows.
STEMS = {"imagenet": (7, 2, True), "small": (3, 1, False)}
EXPANSION = 4  # channels that leave a bottleneck, per channel inside


class ResNet(nn.Module):
    """Images in, globally averaged features out.

    Args:
      depth: "resnet18", "resnet34" or "resnet50".
      stem: "imagenet" (7x7 stride 2, then 3x3 max-pool stride 2) or "small" (3x3 stride 1, no pool).
      width: channels of the first stage; each later stage doubles them.
      dtype: of the convolutions and activations. Parameters, statistics and features are float32.
      remat: blocks are computed again in the backward pass instead of being kept.

    Raises:
      UserError: the depth or the stem is unknown.
    """

    depth: str = "resnet18"
    stem: str = "imagenet"
    width: int = 64
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n *v h w c"], train: bool) -> Float[Array, "n *v d"]:
        """Features of images [n, h, w, c], or of v views of each [n, v, h, w, c]; d = 8 width, or 32 width (ResNet-50).

        With `train` the batch is normalised by its own statistics, and the collection "batch_stats" is updated.
        Views are normalised apart, with one update each, in order: the same numbers as v passes, from one
        program that compiles in half the time.
        """
        stages, bottleneck = _known("depth", self.depth, DEPTHS)
        size, stride, pool = _known("stem", self.stem, STEMS)
        views = x.shape[1] if x.ndim == 5 else 1
        y = x.reshape(-1, *x.shape[-3:])
        y = Conv(self.width, size, stride, self.dtype, name="conv1")(y)
        y = nn.relu(BatchNorm(views, name="bn1")(y, train))
        y = max_pool(y) if pool else y
        kind = nn.remat(Block, static_argnums=2) if self.remat else Block  # `train`, counted from `self`
        block = functools.partial(kind, bottleneck=bottleneck, views=views, dtype=self.dtype)
        for stage, count in enumerate(stages):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                y = block(self.width * 2**stage, stride, name=f"layer{stage + 1}_{i}")(y, train)
        return jnp.mean(y.astype(jnp.float32), (1, 2)).reshape(*x.shape[:-3], -1)


class Block(nn.Module):
    """`relu(shortcut + residual)`: two 3x3 convolutions, or 1x1, 3x3 and 1x1 in a bottleneck."""

    features: int
    stride: int
    bottleneck: bool
    views: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        narrow, wide = self.features, self.features * (EXPANSION if self.bottleneck else 1)
        layers = [(narrow, 1, 1), (narrow, 3, self.stride), (wide, 1, 1)]
        if not self.bottleneck:
            layers = [(narrow, 3, self.stride), (wide, 3, 1)]
        y = x
        for i, (features, size, stride) in enumerate(layers, 1):
            y = Conv(features, size, stride, self.dtype, name=f"conv{i}")(nn.relu(y) if i > 1 else y)
            y = BatchNorm(self.views, name=f"bn{i}")(y, train)
        if self.stride > 1 or x.shape[-1] != wide:
            x = Conv(wide, 1, self.stride, self.dtype, name="downsample_0")(x)
            x = BatchNorm(self.views, name="downsample_1")(x, train)
        return nn.relu(y + x)


class Conv(nn.Module):
    """Square convolution without bias, padded by `(size - 1) // 2` on every side."""

    features: int
    size: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", kaiming_normal, (self.size, self.size, x.shape[-1], self.features))
        return conv(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, (self.size - 1) // 2)


def kaiming_normal(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Kernel [kh, kw, in, out] ~ N(0, 2 / (kh kw out)), not truncated: PyTorch's `kaiming_normal_`, mode "fan_out"."""
    fan_out = shape[0] * shape[1] * shape[3]
    return jax.random.normal(key, shape, dtype) * (2 / fan_out) ** 0.5


def _known(setting: str, name: str, table: dict) -> tuple:
    if name not in table:
        raise UserError(f"ResNet has no {setting} '{name}'{nearest(name, table)}")
    return table[name]
