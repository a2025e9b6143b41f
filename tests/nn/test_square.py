"""The autoencoder of square images: its shapes, its transposed convolutions, and its gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from clustering_jax.nn.square import CHANNELS, SquareDecoder, SquareEncoder, sides, transposed

KEY = jax.random.key(0)


@pytest.mark.parametrize(("width", "expected"), [(784, [28, 14, 7, 4]), (64, [8, 4, 2, 1]), (121, [11, 6, 3, 2])])
def test_shapes(width, expected):
    assert sides(width) == expected
    x = jax.random.uniform(KEY, (2, width))
    z, _ = jax.jit(SquareEncoder(5).init_with_output)(KEY, x)
    back, variables = jax.jit(SquareDecoder(width).init_with_output)(KEY, z)
    assert z.shape == (2, 5) and back.shape == x.shape and (back > 0).all() and (back < 1).all()
    assert variables["params"]["linear"]["kernel"].shape == (5, expected[-1] ** 2 * CHANNELS[-1])


@pytest.mark.parametrize(("small", "large"), [(1, 2), (2, 3), (4, 7), (7, 14), (14, 28)])
def test_a_layer_of_the_decoder_is_the_transpose_of_a_convolution(small, large):
    """For all x and y: <conv(x), y> = <x, transpose(y)>, with the kernel turned by half a turn."""
    kernel = jax.random.normal(KEY, (3, 3, 2, 3))
    x, y = jax.random.normal(KEY, (1, large, large, 3)), jax.random.normal(jax.random.key(1), (1, small, small, 2))
    numbers = ("NHWC", "HWIO", "NHWC")
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    forward = lax.conv_general_dilated(x, turned, (2, 2), [(1, 1)] * 2, dimension_numbers=numbers)
    back = transposed(large, y, kernel)
    assert forward.shape == y.shape and back.shape == x.shape
    np.testing.assert_allclose(jnp.sum(forward * y), jnp.sum(x * back), rtol=1e-4)


@pytest.mark.parametrize(("small", "large"), [(1, 2), (2, 3), (4, 7), (7, 14)])
def test_value_and_gradients_are_those_of_flax(small, large):
    def flax(x, kernel):
        padding = (1, 2 + large - 2 * small)
        layer = nn.ConvTranspose(3, (3, 3), (2, 2), (padding, padding), use_bias=False)
        return layer.apply({"params": {"kernel": kernel}}, x)

    x, kernel = jax.random.normal(KEY, (2, small, small, 2)), jax.random.normal(jax.random.key(1), (3, 3, 2, 3))
    weights = jax.random.normal(jax.random.key(2), (2, large, large, 3))
    ours, theirs = (
        jax.value_and_grad(lambda *a, f=f: jnp.sum(weights * f(*a)), (0, 1))(x, kernel)
        for f in (lambda x, kernel: transposed(large, x, kernel), flax)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, theirs)


@pytest.mark.long
def test_it_learns_to_copy_an_image():
    x = (jax.random.uniform(KEY, (4, 64)) > 0.5).astype(jnp.float32)
    encoder, decoder = SquareEncoder(8), SquareDecoder(64)
    params = (encoder.init(KEY, x), decoder.init(KEY, jnp.zeros((4, 8))))

    @jax.jit
    def loss(params):
        return jnp.mean((decoder.apply(params[1], encoder.apply(params[0], x)) - x) ** 2)

    tx = optax.adam(1e-2)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    before, state = loss(params), tx.init(params)
    for _ in range(60):
        params, state = step(params, state)
    assert loss(params) < 0.5 * before
