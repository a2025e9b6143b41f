"""The symmetric form, which visits each pair of blocks once, gives the sums and derivatives of `log_sums`."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.losses.blockwise import log_sums
from clustering_jax.losses.symmetric import symmetric_log_sums
from tests.losses.test_blockwise import unit_views
from tests.losses.test_dense import weighed


@partial(jax.jit, static_argnames="form")
def value_and_gradients(form, rows, examples, temperature):
    return jax.value_and_grad(lambda rows, t: weighed(form(rows, examples, t)), (0, 1))(rows, temperature)


EXAMPLES = {
    "two views": np.repeat(np.arange(1, 14), 2),
    "some excluded": np.repeat(np.arange(1, 14) * (np.arange(13) % 3 > 0), 2),
    "all excluded": np.zeros(26, int),
    "three views and more": np.sort(np.arange(26) % 7) + 1,
}


REFERENCE = partial(log_sums, block=5)


@cache
def symmetric_of(block):
    """Returns the same object for each block size, so that its program is compiled once."""
    return partial(symmetric_log_sums, block=block)


@pytest.mark.parametrize("block, temperature", [(1, 0.3), (4, 0.01), (4, 1.0), (13, 0.01), (512, 0.3)])
@pytest.mark.parametrize("examples", EXAMPLES)
def test_equals_log_sums(examples, block, temperature):
    with jax.enable_x64(True):
        rows = jnp.asarray(np.concatenate(unit_views(13)), jnp.float64)
        arguments = rows, EXAMPLES[examples], jnp.asarray(temperature)
        found, expected = (value_and_gradients(form, *arguments) for form in (symmetric_of(block), REFERENCE))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-12), found, expected)


# With weights of both signs, terms cancel, and rounding errors are relatively larger.
@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 2e-5), (jnp.bfloat16, 1e-2)])
def test_products_are_computed_in_float32(dtype, tolerance):
    rows = jnp.asarray(np.concatenate(unit_views(40))).astype(dtype)
    arguments = rows, np.repeat(np.arange(1, 41), 2), jnp.float32(0.2)
    value, (gradient, slope) = value_and_gradients(partial(symmetric_log_sums, block=16), *arguments)
    assert value.dtype == slope.dtype == jnp.float32 and gradient.dtype == dtype
    wide = value_and_gradients(log_sums, rows.astype(jnp.float32), *arguments[1:])
    for x, y in zip(jax.tree.leaves((value, (gradient, slope))), jax.tree.leaves(wide), strict=True):
        assert np.max(np.abs(x.astype(jnp.float32) - y)) <= tolerance * np.max(np.abs(y))


def test_second_derivatives_are_refused():
    rows = jnp.asarray(np.concatenate(unit_views(4)))
    with pytest.raises(ValueError, match=r"^nt_xent: .* no second derivative; pass impl='dense'"):
        jax.hessian(lambda rows: weighed(symmetric_log_sums(rows, np.repeat(np.arange(1, 5), 2), 0.2)))(rows)


def test_memory_is_linear_in_the_rows():
    """For 32,768 rows of 128 numbers, the memory is six times the rows, without an array [rows, block]."""
    rows = jax.ShapeDtypeStruct((32_768, 128), jnp.float32)
    examples = jax.ShapeDtypeStruct((32_768,), jnp.int32)
    gradient = jax.jit(jax.value_and_grad(lambda rows, examples: weighed(symmetric_log_sums(rows, examples, 0.5))))
    assert gradient.lower(rows, examples).compile().memory_analysis().temp_size_in_bytes < 6 * 4 * 128 * 32_768
