"""Compares `rounded_product` with products of rounded factors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.nn.cpu.product import rounded_product


def rounded(x):
    return np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)


def case(rows, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in ((rows, 40), (40, 30), (rows, 30)))


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 256])
def test_only_the_factors_are_rounded(rows):
    x, kernel, dy = case(rows)
    value, pull = jax.vjp(jax.jit(rounded_product), x, kernel)
    a, b, g = map(rounded, (x, kernel, dy))
    for got, expected in zip((value, *pull(dy)), (a @ b, g @ b.T, a.T @ g), strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", [(0, 0), (None, 0), (0, None)])
def test_several_at_a_time(axes):
    x, kernel = (np.stack(parts) for parts in zip(*(case(8, seed)[:2] for seed in range(3)), strict=True))
    x, kernel = (a if axis == 0 else a[0] for a, axis in zip((x, kernel), axes, strict=True))
    gradient = jax.grad(lambda x, kernel: jnp.square(rounded_product(x, kernel)).sum(), (0, 1))
    together = jax.jit(jax.vmap(gradient, axes))(x, kernel)
    for i in range(3):
        alone = gradient(*(a[i] if axis == 0 else a for a, axis in zip((x, kernel), axes, strict=True)))
        for several, one in zip(together, alone, strict=True):
            np.testing.assert_allclose(several[i], one, rtol=1e-2, atol=0.1)


def test_all_products_have_bfloat16_factors():
    x, kernel, _ = case(4)
    jaxpr = jax.make_jaxpr(jax.grad(lambda x, kernel: rounded_product(x, kernel).sum(), (0, 1)))(x, kernel)
    dots = [e for e in jaxpr.jaxpr.eqns if e.primitive.name == "dot_general"]
    assert len(dots) >= 2
    assert {v.aval.dtype for e in dots for v in e.invars} == {jnp.dtype(jnp.bfloat16)}


def test_it_lowers_for_accelerators_with_one_transpose():
    x, kernel, _ = case(4)
    gradient = jax.jit(jax.grad(lambda x, kernel: rounded_product(x, kernel).sum(), (0, 1)))
    text = {p: gradient.trace(x, kernel).lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu", "cuda")}
    assert {p: "concatenate" in lowered for p, lowered in text.items()} == {"cpu": True, "tpu": False, "cuda": False}
