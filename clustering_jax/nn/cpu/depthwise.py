"""Depthwise convolution, lowered on the CPU as shifted products that beat XLA's own grouped convolution there.

XLA's CPU backend computes a convolution with one group per channel by a slow loop: 10 to 120 times as long as one
multiplication and addition of the whole image for each tap of the kernel (the layers of EfficientNet-Lite0, 2 cores).
Other platforms keep the native convolution. `benchmarks/encoders.py` measures a network that rests on it.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jax import lax

from clustering_jax.typing import Array, Float


def depthwise(
    x: Float[Array, "n h w c"], kernel: Float[Array, "k k c"], stride: int = 1, *, lowering: str = "auto"
) -> Float[Array, "n ho wo c"]:
    """Cross-correlation of every channel with its own kernel, zero padding "SAME" as TensorFlow defines it.

    Args:
      x: images [n, h, w, c].
      kernel: weights [k, k, c].
      stride: step in both directions, >= 1.
      lowering: "auto" takes shifted products on the CPU and the native convolution elsewhere; "native" or "shifted"
        force one form on every platform. Both are the same function to the rounding of the sums.

    Returns:
      [n, ho, wo, c], ho = ceil(h / stride).
    """
    if lowering != "auto":
        return FORMS[lowering](x, kernel, stride)
    forms = {platform: functools.partial(FORMS[form], stride=stride) for platform, form in _AUTO.items()}
    return lax.platform_dependent(x, kernel, **forms)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis of `size` pixels, so that ``ceil(size / stride)`` outputs fit."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _native(x: Array, kernel: Array, stride: int) -> Array:
    pads = [same_padding(size, len(kernel), stride) for size in x.shape[1:3]]
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _shifted(x: Array, kernel: Array, stride: int) -> Array:
    """The sum over the kernel's taps of the shifted image times the tap, which XLA fuses into one loop."""
    height, width = (-(-size // stride) for size in x.shape[1:3])
    pads = [same_padding(size, len(kernel), stride) for size in x.shape[1:3]]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    # Without the barrier every tap would compute again what produced x.
    x = lax.optimization_barrier(x)
    rows, cols = (stride * (size - 1) + 1 for size in (height, width))
    taps = [(i, j) for i in range(len(kernel)) for j in range(len(kernel))]
    return jnp.asarray(sum(x[:, i : i + rows : stride, j : j + cols : stride] * kernel[i, j] for i, j in taps))


FORMS = {"native": _native, "shifted": _shifted}
_AUTO = {"cpu": "shifted", "default": "native"}
