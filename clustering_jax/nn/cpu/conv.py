"""2-D convolution that uses matrix products on the CPU where they are faster than XLA's own convolution.

XLA's CPU convolution is as fast as a matrix product on large feature maps. On maps of one or two pixels with many
channels it is 10 to 100 times slower, and a ResNet with images of 32 pixels spends half of its operations there. So
each of the three passes (value, gradient of the input, gradient of the kernel) has its own implementation on the CPU.
`plan` chooses it from the static shapes. `benchmarks/convolution.py` prints the measurements behind this choice. GPU
and TPU use the native convolution.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.typing import Array, Float

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


class Plan(NamedTuple):
    """The implementation of each pass, a key of `FORWARD`."""

    forward: str
    input_grad: str
    kernel_grad: str


def conv(
    x: Float[Array, "n h w cin"],
    kernel: Float[Array, "kh kw cin cout"],
    stride: int = 1,
    padding: int = 0,
    *,
    lowering: str = "auto",
) -> Float[Array, "n ho wo cout"]:
    """Cross-correlation of NHWC images with an HWIO kernel, the same function as `torch.nn.functional.conv2d`.

    Args:
      x: images [n, h, w, cin].
      kernel: weights [kh, kw, cin, cout] of the same dtype.
      stride: step in both directions, >= 1.
      padding: number of zeros added on all four sides, >= 0. (With a stride, "SAME" pads differently from PyTorch.)
      lowering: "auto" uses the fastest implementation for the shapes on the CPU, and the native convolution elsewhere.
        "native", "im2col" and "dense" use this implementation for all three passes on every platform. The results are
        the same up to rounding.

    Returns:
      [n, ho, wo, cout] with ho = (h + 2 padding - kh) // stride + 1, and wo likewise.

    Raises:
      ValueError: the ranks or the channels do not match, the kernel is larger than the padded image, or the lowering
        is unknown.
    """
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[2]:
        raise ValueError(f"conv expects [n, h, w, c] and [kh, kw, c, out], got {x.shape} and {kernel.shape}")
    if min(_extent(x.shape, kernel.shape, stride, padding)) < 1:
        raise ValueError(f"conv of {x.shape}, padding {padding}, is smaller than its kernel {kernel.shape}")
    if lowering == "auto":
        native = functools.partial(_conv, stride, padding, Plan(*["native"] * 3))
        chosen = functools.partial(_conv, stride, padding, plan(x.shape, kernel.shape, stride, padding))
        return lax.platform_dependent(x, kernel, cpu=chosen, default=native)
    if lowering not in FORWARD:
        raise ValueError(f"lowering must be 'auto' or one of {sorted(FORWARD)}, got {lowering!r}")
    return _conv(stride, padding, Plan(*[lowering] * 3), x, kernel)


def plan(x: tuple[int, ...], kernel: tuple[int, ...], stride: int, padding: int) -> Plan:
    """The fastest implementation of each pass on the CPU.

    The thresholds were measured with `benchmarks/convolution.py` on 2 cores with AVX-512, with batches of 64 to 256.

    Args:
      x: shape of the images.
      kernel: shape of the kernel.
      stride: as in `conv`.
      padding: as in `conv`.
    """
    out = max(_extent(x, kernel, stride, padding))
    if _sees_all(x, kernel, stride, padding):
        return Plan("dense", "dense", "dense")
    if kernel[0] == kernel[1] == 1:
        return Plan("im2col", "im2col", "im2col")
    if kernel[2] < 16:
        return Plan("native", "native", "native")
    strided, wide = stride > 1 and out <= 8, kernel[2] >= 256
    return Plan(
        forward="im2col" if strided or out <= (4 if wide else 3) else "native",
        input_grad="im2col" if strided or out <= (7 if wide else 3) else "native",
        kernel_grad="im2col" if out <= 16 else "native",
    )


def _extent(x: tuple[int, ...], kernel: tuple[int, ...], stride: int, padding: int) -> tuple[int, int]:
    height, width = ((n + 2 * padding - k) // stride + 1 for n, k in zip(x[1:3], kernel[:2], strict=True))
    return height, width


def _sees_all(x: tuple[int, ...], kernel: tuple[int, ...], stride: int, padding: int) -> bool:
    """Whether every output pixel reads every input pixel. Then the dense matrix contains no zeros."""
    extents = zip(x[1:3], kernel[:2], _extent(x, kernel, stride, padding), strict=True)
    return all(padding >= stride * (out - 1) and n - 1 + padding < k for n, k, out in extents)


def _native(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    pads = [(padding, padding)] * 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=DIMENSIONS)


def _shifted(x: Array, kernel: tuple[int, ...], stride: int, padding: int) -> list[Array]:
    """For each tap of the kernel, row by row, the pixels [n, ho, wo, c] that the outputs multiply with it."""
    height, width = (stride * (out - 1) + 1 for out in _extent(x.shape, kernel, stride, padding))
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    corners = [(i, j) for i in range(kernel[0]) for j in range(kernel[1])]
    return [x[:, i : i + height : stride, j : j + width : stride] for i, j in corners]


def _im2col(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    patches = jnp.concatenate(_shifted(x, kernel.shape, stride, padding), axis=-1)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def _dense(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """One product of whole images [n, h w cin] with a matrix [h w cin, ho wo cout] made from the kernel."""
    (n, h, w, _), (rows, cols) = x.shape, _extent(x.shape, kernel.shape, stride, padding)
    before, after = zip(
        *(
            (max(0, stride * (out - 1) - padding), max(0, size + padding - k))
            for size, k, out in zip((h, w), kernel.shape, (rows, cols), strict=False)
        ),
        strict=True,
    )
    kernel = jnp.pad(kernel, ((before[0], after[0]), (before[1], after[1]), (0, 0), (0, 0)))
    top, left = (padding + b for b in before)
    seen = [
        kernel[top - stride * i : top - stride * i + h, left - stride * j : left - stride * j + w]
        for i in range(rows)
        for j in range(cols)
    ]
    matrix = jnp.stack(seen, axis=-2).reshape(x[0].size, -1)
    return (x.reshape(n, -1) @ matrix).reshape(n, rows, cols, -1)


FORWARD: dict[str, Callable[[Array, Array, int, int], Array]] = {
    "native": _native,
    "im2col": _im2col,
    "dense": _dense,
}


def _input_grad(form: str, stride: int, padding: int, shape: tuple[int, ...], kernel: Array, dy: Array) -> Array:
    x = jax.ShapeDtypeStruct(shape, dy.dtype)
    return jax.linear_transpose(lambda x: FORWARD[form](x, kernel, stride, padding), x)(dy)[0]


def _kernel_grad(form: str, stride: int, padding: int, shape: tuple[int, ...], x: Array, dy: Array) -> Array:
    if form != "im2col":
        kernel = jax.ShapeDtypeStruct(shape, dy.dtype)
        return jax.linear_transpose(lambda kernel: FORWARD[form](x, kernel, stride, padding), kernel)(dy)[0]
    # XLA's CPU product is three times slower if its left factor is transposed inside the product. So dy, the smaller
    # factor, is transposed once before (the barrier keeps it separate). The patches are never stored.
    rows = lax.optimization_barrier(dy.reshape(-1, shape[3]).T)
    taps = [rows @ pixels.reshape(-1, shape[2]) for pixels in _shifted(x, shape, stride, padding)]
    return jnp.stack(taps).reshape(shape[0], shape[1], shape[3], shape[2]).swapaxes(2, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _conv(stride: int, padding: int, plan: Plan, x: Array, kernel: Array) -> Array:
    return FORWARD[plan.forward](x, kernel, stride, padding)


def _conv_fwd(stride: int, padding: int, plan: Plan, x: Array, kernel: Array) -> tuple[Array, tuple]:
    return _conv(stride, padding, plan, x, kernel), (x, kernel)


def _conv_bwd(stride: int, padding: int, plan: Plan, saved: tuple, dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    dy = lax.optimization_barrier(dy)
    dx = _input_grad(plan.input_grad, stride, padding, x.shape, kernel, dy)
    return dx, _kernel_grad(plan.kernel_grad, stride, padding, kernel.shape, x, dy)


_conv.defvjp(_conv_fwd, _conv_bwd)
