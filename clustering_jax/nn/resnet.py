"""ResNet-18, -34 and -50 in torchvision's layout (He et al., "Deep Residual Learning for Image Recognition",
CVPR 2016; the bottleneck carries its stride on the 3x3 convolution, as torchvision's does).

Given torchvision's weights it is torchvision's function, in training and in evaluation mode, running statistics
included. Its variables carry torchvision's names, with `_0` for `.0`: `conv1/kernel`, `bn1/scale`,
`layer1_0/conv1/kernel`, `layer2_0/downsample_0/kernel` (convolution), `layer2_0/downsample_1/scale` (norm).
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.nn.conv import conv
from clustering_jax.typing import Array, Float

# Blocks in each of the four stages, and whether they are bottlenecks.
DEPTHS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
}
EPSILON = 1e-5
DECAY = 0.9


def kaiming_normal(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Weights [kh, kw, cin, cout] ~ N(0, 2 / (kh kw cout)), not truncated: PyTorch's `kaiming_normal_(mode="fan_out")`."""
    fan_out = shape[0] * shape[1] * shape[3]
    return jax.random.normal(key, shape, dtype) * (2 / fan_out) ** 0.5


class Conv(nn.Module):
    features: int
    size: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", kaiming_normal, shape)
        return conv(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, (self.size - 1) // 2)


class BatchNorm(nn.Module):
    views: int = 1

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            factor = scale * lax.rsqrt(var.value + EPSILON)
            return (x.astype(jnp.float32) * factor + (bias - mean.value * factor)).astype(x.dtype)
        groups = x.reshape(-1, self.views, *x.shape[1:])
        y, m, v = _normalize(groups, scale, bias)
        if not self.is_initializing():
            count = groups.size // m.size
            unbiased = v * (count / max(count - 1, 1))
            for view in range(self.views):
                mean.value = DECAY * mean.value + (1 - DECAY) * m[view]
                var.value = DECAY * var.value + (1 - DECAY) * unbiased[view]
        return y.reshape(x.shape)


AXES = (0, 2, 3)


def _moments(x):
    x = x.astype(jnp.float32)
    m = jnp.mean(x, AXES)
    v = jnp.mean(jnp.square(x - m[:, None, None]), AXES)
    return m, v


@jax.custom_vjp
def _normalize(x, scale, bias):
    return _normalize_fwd(x, scale, bias)[0]


def _normalize_fwd(x, scale, bias):
    m, v = _moments(x)
    r = lax.rsqrt(v + EPSILON)
    f = scale * r
    y = (x.astype(jnp.float32) - m[:, None, None]) * f[:, None, None] + bias
    return (y.astype(x.dtype), m, v), (x, m, r, scale)


def _normalize_bwd(saved, cot):
    x, m, r, scale = saved
    dy = cot[0].astype(jnp.float32)
    n = x.size // m.size
    hat = (x.astype(jnp.float32) - m[:, None, None]) * r[:, None, None]
    db = jnp.sum(dy, AXES)
    ds = jnp.sum(dy * hat, AXES)
    e = lambda a: a[:, None, None]
    dx = e(scale * r) * (dy - e(db / n) - hat * e(ds / n))
    return dx.astype(x.dtype), ds.sum(0), db.sum(0)


_normalize.defvjp(_normalize_fwd, _normalize_bwd)


def max_pool(x: Float[Array, "n h w c"]) -> Array:
    """3x3 maximum with stride 2 and one pixel of padding: [n, ceil(h / 2), ceil(w / 2), c]."""
    return _pool_axis(_pool_axis(x, 1), 2)


def _pool_axis(x: Array, axis: int) -> Array:
    low = jnp.array(-jnp.inf, x.dtype)
    pad = [(0, 0, 0)] * x.ndim
    pad[axis] = (0, x.shape[axis] % 2, 0)
    x = lax.pad(x, low, pad)
    x = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
    even, odd = (lax.index_in_dim(x, i, axis + 1, keepdims=False) for i in range(2))
    pad[axis] = (1, -1, 0)
    return jnp.maximum(jnp.maximum(lax.pad(odd, low, pad), even), odd)


class Block(nn.Module):
    features: int
    stride: int
    bottleneck: bool
    views: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        cv = functools.partial(Conv, dtype=self.dtype)
        bn = functools.partial(BatchNorm, self.views)
        f = self.features
        if self.bottleneck:
            out = 4 * f
            y = nn.relu(bn(name="bn1")(cv(f, 1, name="conv1")(x), train))
            y = nn.relu(bn(name="bn2")(cv(f, 3, self.stride, name="conv2")(y), train))
            y = bn(name="bn3")(cv(out, 1, name="conv3")(y), train)
        else:
            out = f
            y = nn.relu(bn(name="bn1")(cv(f, 3, self.stride, name="conv1")(x), train))
            y = bn(name="bn2")(cv(f, 3, name="conv2")(y), train)
        if self.stride > 1 or x.shape[-1] != out:
            x = bn(name="downsample_1")(cv(out, 1, self.stride, name="downsample_0")(x), train)
        return nn.relu(y + x)


class ResNet(nn.Module):
    depth: str = "resnet18"
    stem: str = "imagenet"
    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        lead = x.shape[:-3]
        views = x.shape[1] if x.ndim == 5 else 1
        x = x.reshape(-1, *x.shape[-3:])
        stages, bottleneck = DEPTHS[self.depth]
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = Conv(self.width, size, stride, self.dtype, name="conv1")(x)
        x = nn.relu(BatchNorm(views, name="bn1")(x, train))
        if self.stem == "imagenet":
            x = max_pool(x)
        for stage, blocks in enumerate(stages):
            for i in range(blocks):
                x = Block(
                    self.width * 2**stage,
                    2 if stage and not i else 1,
                    bottleneck,
                    views,
                    self.dtype,
                    name=f"layer{stage + 1}_{i}",
                )(x, train)
        x = jnp.mean(x.astype(jnp.float32), (1, 2))
        return x.reshape(*lead, -1)
