"""A function that is computed in chunks of rows has the same result and gradient, in less memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.losses import nt_xent
from clustering_jax.nn.chunks import chunked
from clustering_jax.parallel import batch_sharding, data_mesh, replicated

N, D = 23, 5


def encoder(params, rows):
    """An encoder of several layers that uses a part of the inputs and returns several results."""
    x = rows["x"]
    for w in params:
        x = jnp.tanh(x @ w)
    return x * rows["scale"][:, None], {"sum": jnp.sum(x * x, axis=1)}


def loss(size, params, rows):
    """A loss that compares rows with each other, so that each gradient needs all representations."""
    z, more = chunked(partial(encoder, params), size)(rows)
    return nt_xent(z, z[::-1], impl="dense") + jnp.std(more["sum"])


def arguments(n=N, width=D, layers=3, dtype=np.float64):
    rng = np.random.default_rng(0)
    params = [rng.normal(size=(width, width)).astype(dtype) for _ in range(layers)]
    return params, {"x": rng.normal(size=(n, width)).astype(dtype), "scale": np.arange(1, n + 1) % 3}


@pytest.mark.parametrize(
    "size, x64, tolerance", [(1, False, 1e-6), (4, False, 1e-6), (4, True, 1e-13), (22, True, 1e-13), (100, False, 0)]
)
def test_value_and_gradients_equal_those_without_chunks(size, x64, tolerance):
    with jax.enable_x64(x64):
        params, rows = jax.tree.map(jnp.asarray, arguments())

        def gradient(size):
            return jax.value_and_grad(lambda params, x: loss(size, params, {**rows, "x": x}), (0, 1))

        whole, parts = (jax.jit(gradient(s))(params, rows["x"]) for s in (0, size))
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
            assert a.dtype == (np.float64 if x64 else np.float32)
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(a).max()))
            assert np.any(np.asarray(a))


def test_rows_stay_in_order():
    x = np.arange(2.0 * N).reshape(N, 2)
    np.testing.assert_array_equal(chunked(lambda rows: 2 * rows, 4)(x), 2 * x)


@pytest.mark.parametrize("devices", [1, 8])
def test_memory_is_limited_by_one_chunk(devices):
    """Twelve layers, 1,024 rows per device, sixteen chunks and few parameters. No row leaves its device."""
    n = 1024 * devices
    params, rows = arguments(n, 32, 12, np.float32)
    mesh = data_mesh(n, jax.devices()[:devices])
    shardings = replicated(mesh), batch_sharding(mesh)

    def temporary(size):
        gradient = jax.jit(jax.grad(partial(loss_of_few, size)), in_shardings=shardings)
        program = gradient.lower(params, rows).compile()
        assert "all-gather" not in program.as_text() and "all-to-all" not in program.as_text()
        return program.memory_analysis().temp_size_in_bytes

    assert temporary(n // 16) < temporary(0) / 3


def loss_of_few(size, params, rows):
    """A loss that does not compare rows."""
    z, more = chunked(partial(encoder, params), size)(rows)
    return jnp.mean(z) + jnp.std(more["sum"])
