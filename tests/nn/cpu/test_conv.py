"""Every lowering of the convolution gives the same value and gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.nn.cpu.conv import FORWARD, Plan, conv, plan

# kernel, stride, padding
KERNELS = [(1, 2, 0), (2, 1, 0), (3, 1, 1), (3, 2, 1), (7, 2, 3)]
SIZES = [(n, n) for n in range(1, 10)] + [(1, 4), (5, 2)]
FORMS = ["auto", *sorted(FORWARD)]


def cases() -> list:
    fits = [(k, s) for k in KERNELS for s in (SIZES if k[0] == 3 else SIZES[::3]) if s[0] + 2 * k[2] >= k[0]]
    return [pytest.param(k, s, id=f"{k[0]}x{k[0]}s{k[1]}p{k[2]}-on-{s[0]}x{s[1]}") for k, s in fits]


def draw(kernel: tuple[int, int, int], size: tuple[int, int], cin: int = 3, cout: int = 4) -> tuple:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, *size, cin)), rng.normal(size=(kernel[0], kernel[0], cin, cout))
    return jnp.array(x, jnp.float32), jnp.array(w, jnp.float32)


def textbook(x: jax.Array, w: jax.Array, stride: int, padding: int) -> np.ndarray:
    x = np.pad(np.array(x, np.float64), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    size, (n, height, width, _) = w.shape[0], x.shape
    out = np.zeros((n, (height - size) // stride + 1, (width - size) // stride + 1, w.shape[3]))
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            seen = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
            out[:, i, j] = np.einsum("nhwc,hwcd->nd", seen, np.array(w, np.float64))
    return out


def value_and_gradients(x, w, stride, padding, lowering):
    y, pull = jax.vjp(lambda x, w: conv(x, w, stride, padding, lowering=lowering), x, w)
    return y, *pull(jnp.cos(jnp.arange(y.size, dtype=x.dtype)).reshape(y.shape))


@pytest.mark.parametrize(("kernel", "size"), cases())
def test_all_forms_agree(kernel, size):
    x, w = draw(kernel, size)
    forms = [
        f for f in FORMS if f != "dense" or max(size) <= 4
    ]  # the matrix of a larger feature map takes long to compile
    run = jax.jit(lambda x, w: {f: value_and_gradients(x, w, *kernel[1:], f) for f in forms})
    got = run(x, w)
    np.testing.assert_allclose(got["native"][0], textbook(x, w, *kernel[1:]), atol=2e-5)
    for form in forms:
        for a, b in zip(got[form], got["native"], strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5, err_msg=form)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 17])
@pytest.mark.parametrize("kernel", [(1, 2, 0), (3, 1, 1), (3, 2, 1)])
def test_auto_agrees_with_many_channels(kernel, size):
    x, w = draw(kernel, (size, size), 16, 24)
    run = jax.jit(lambda x, w: [value_and_gradients(x, w, *kernel[1:], f) for f in ("auto", "native")])
    for a, b in zip(*run(x, w), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()) + 1e-5)


@pytest.mark.parametrize(
    ("x", "kernel", "stride", "padding", "want"),
    [
        ((8, 1, 1, 512), (3, 3, 512, 512), 1, 1, Plan("dense", "dense", "dense")),
        ((8, 2, 2, 256), (3, 3, 256, 256), 1, 1, Plan("dense", "dense", "dense")),
        ((8, 2, 2, 256), (3, 3, 256, 512), 2, 1, Plan("dense", "dense", "dense")),
        ((8, 3, 3, 512), (3, 3, 512, 512), 1, 1, Plan("im2col", "im2col", "im2col")),
        ((8, 8, 8, 64), (1, 1, 64, 128), 2, 0, Plan("im2col", "im2col", "im2col")),
        ((8, 56, 56, 64), (3, 3, 64, 64), 1, 1, Plan("native", "native", "native")),
        ((8, 32, 32, 3), (7, 7, 3, 64), 2, 3, Plan("native", "native", "native")),
    ],
)
def test_plan(x, kernel, stride, padding, want):
    assert plan(x, kernel, stride, padding) == want


def lowered(platform: str) -> str:
    x, w = jnp.zeros((2, 1, 1, 16)), jnp.zeros((3, 3, 16, 16))
    gradients = jax.jit(jax.grad(lambda x, w: conv(x, w, 1, 1).sum(), (0, 1)))
    return gradients.trace(x, w).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_keep_the_native_convolution(platform):
    assert lowered(platform).count("stablehlo.convolution") >= 2
    assert "stablehlo.convolution" not in lowered("cpu")


@pytest.mark.parametrize("form", FORMS)
def test_float64_and_bfloat16(form):
    x, w = draw((3, 2, 1), (5, 5))
    low = conv(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16), 2, 1, lowering=form)
    assert low.dtype == jnp.bfloat16
    want = textbook(x, w, 2, 1)
    np.testing.assert_allclose(low.astype(jnp.float32), want, atol=0.2)
    with jax.enable_x64(True):
        high = conv(jnp.array(x, jnp.float64), jnp.array(w, jnp.float64), 2, 1, lowering=form)
        np.testing.assert_allclose(high, want, atol=1e-12)


@pytest.mark.parametrize(
    ("x", "kernel", "options", "message"),
    [
        ((2, 4, 4, 3), (3, 3, 5, 8), {}, r"\(2, 4, 4, 3\) and \(3, 3, 5, 8\)"),
        ((4, 4, 3), (3, 3, 3, 8), {}, r"\(4, 4, 3\)"),
        ((2, 2, 2, 3), (3, 3, 3, 8), {}, "smaller than its kernel"),
        ((2, 4, 4, 3), (3, 3, 3, 8), {"lowering": "fft"}, "'fft'"),
    ],
)
def test_misuse(x, kernel, options, message):
    with pytest.raises(ValueError, match=message):
        conv(jnp.zeros(x), jnp.zeros(kernel), **options)
