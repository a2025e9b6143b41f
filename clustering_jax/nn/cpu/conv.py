"""2-D convolution, lowered on the CPU as the matrix products that beat XLA's own convolution there.

XLA's CPU convolution is as fast as a matrix product on large maps and 10 to 100 times slower on maps of one or
two pixels with many channels, which is where a ResNet fed 32 px images spends half its operations. Each of the
three passes (value, gradient of the input, gradient of the kernel) therefore has its own form, chosen from the
static shapes by `plan`. `benchmarks/convolution.py` prints the table that the choice rests on. GPU and TPU keep
the native convolution.
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
    """The form of each pass, a key of FORWARD."""

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
    """Cross-correlation of NHWC images with an HWIO kernel, as `torch.nn.functional.conv2d` computes it.

    Args:
      x: images [n, h, w, cin].
      kernel: weights [kh, kw, cin, cout] of the same dtype.
      stride: step in both directions, >= 1.
      padding: zeros added on all four sides, >= 0 (a strided "SAME" pads differently from PyTorch).
      lowering: "auto" takes the fastest form for the shapes on the CPU, the native convolution elsewhere;
        "native", "im2col" or "dense" force one form of all three passes on every platform. All are
        the same function to the rounding of the sums.

    Returns:
      [n, ho, wo, cout], ho = (h + 2 padding - kh) // stride + 1.

    Raises:
      ValueError: ranks or channels do not fit, the kernel exceeds the padded image, or the lowering is unknown.
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
    """The fastest form of each pass on the CPU, from the shapes of the images and of the kernel.

    Thresholds: `benchmarks/convolution.py`, 2 cores with AVX-512, batch 64 to 256.
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
    """Whether every output pixel reads every input pixel, so that no product is with a zero of the padding."""
    extents = zip(x[1:3], kernel[:2], _extent(x, kernel, stride, padding), strict=True)
    return all(padding >= stride * (out - 1) and n - 1 + padding < k for n, k, out in extents)


def _native(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    pads = [(padding, padding)] * 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=DIMENSIONS)


def _shifted(x: Array, kernel: tuple[int, ...], stride: int, padding: int) -> list[Array]:
    """For each tap of the kernel, row by row, the pixels [n, ho, wo, c] that the outputs read through it."""
    height, width = (stride * (out - 1) + 1 for out in _extent(x.shape, kernel, stride, padding))
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    corners = [(i, j) for i in range(kernel[0]) for j in range(kernel[1])]
    return [x[:, i : i + height : stride, j : j + width : stride] for i, j in corners]


def _im2col(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    patches = jnp.concatenate(_shifted(x, kernel.shape, stride, padding), axis=-1)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def _dense(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """One product of whole images [n, h w cin] with a matrix [h w cin, ho wo cout] cut from the kernel."""
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
    # XLA's CPU product is three times slower with its left factor transposed in place: transpose dy, the smaller
    # factor, once and apart (the barrier), and never write the patches down.
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
