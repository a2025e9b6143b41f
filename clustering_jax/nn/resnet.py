"""ResNet-18, -34 and -50 in torchvision's layout. A bottleneck has its stride in the 3x3 convolution.

With torchvision's weights it is the same function as torchvision's model, in training and in evaluation mode, including
the running statistics. The variables have torchvision's names, with `_0` for `.0`: params `conv1/kernel`, `bn1/scale`,
`bn1/bias`, `layer1_0/conv1/kernel`, `layer2_0/downsample_0/kernel` (convolution), `layer2_0/downsample_1/scale` (norm),
and batch_stats `bn1/mean`, `bn1/var`, ... Kernels are [kh, kw, in, out].

References:
  He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, CVPR 2016.
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

# Number of blocks in each of the four stages, and whether they are bottlenecks.
DEPTHS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
}
# Kernel size and stride of the first convolution, and whether max pooling follows.
STEMS = {"imagenet": (7, 2, True), "small": (3, 1, False)}
EXPANSION = 4  # output channels of a bottleneck, as a multiple of its inner channels


class ResNet(nn.Module):
    """Maps images to globally averaged features.

    Args:
      depth: "resnet18", "resnet34" or "resnet50".
      stem: "imagenet" (7x7 stride 2, then 3x3 max-pool stride 2) or "small" (3x3 stride 1, no pool).
      width: channels of the first stage; each later stage doubles them.
      dtype: dtype of the convolutions and activations. Parameters, statistics and features are float32.
      remat: rematerialisation: compute the blocks again in the backward pass instead of storing their activations.

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
        """Features of images.

        Views are normalised separately, with one update of the running statistics for each view, in order. The result
        is the same as that of v passes, but the program compiles in half the time.

        Args:
          x: images [n, h, w, c], or v views of each image [n, v, h, w, c].
          train: normalise by the statistics of the batch, and update the collection "batch_stats".

        Returns:
          float32 [n, d] or [n, v, d], with d = 8 width, or d = 32 width for ResNet-50.
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
    """``relu(shortcut + residual)``. The residual has two 3x3 convolutions, or 1x1, 3x3 and 1x1 in a bottleneck."""

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
    """Convolution with a square kernel and without bias, padded by ``(size - 1) // 2`` on every side."""

    features: int
    size: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", kaiming_normal, (self.size, self.size, x.shape[-1], self.features))
        return conv(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, (self.size - 1) // 2)


def kaiming_normal(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """PyTorch's `kaiming_normal_` with mode "fan_out": a kernel [kh, kw, in, out] from N(0, 2 / (kh kw out))."""
    fan_out = shape[0] * shape[1] * shape[3]
    return jax.random.normal(key, shape, dtype) * (2 / fan_out) ** 0.5


def _known(setting: str, name: str, table: dict) -> tuple:
    if name not in table:
        raise UserError(f"ResNet has no {setting} '{name}'{nearest(name, table)}")
    return table[name]
