"""The ResNet equals torchvision's. Its pooling, normalisation and heads equal PyTorch's."""

from __future__ import annotations

import functools
import re

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.errors import UserError
from clustering_jax.nn.cpu.pool import max_pool
from clustering_jax.nn.mlp import MLP, Linear
from clustering_jax.nn.norm import BatchNorm
from clustering_jax.nn.resnet import ResNet, kaiming_normal
from tests.fixtures.make_resnet_fixture import (
    CASES,
    GRADIENTS,
    STATISTICS,
    corner,
    cotangent,
    images,
    weight,
)
from tests.paths import FIXTURES
from tests.versions import has_old_emitters

# The compiler options of the tests give less exact sums than those of users, within the bounds below.
AS_USERS = {"xla_cpu_use_fusion_emitters": True} if has_old_emitters() else {}
STORED = np.load(FIXTURES / "resnet_torchvision.npz")
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def torch_name(path: tuple[str, ...]) -> str:
    return re.sub(r"_(\d)", r".\1", ".".join(path[:-1])) + "." + LEAVES[path[-1]]


def to_torch(a: np.ndarray) -> np.ndarray:
    return a.transpose(3, 2, 0, 1) if a.ndim == 4 else a


def with_torch_weights(shapes: dict) -> dict:
    flat = flax.traverse_util.flatten_dict(shapes)
    for path, leaf in flat.items():
        order = (3, 2, 0, 1) if leaf.ndim == 4 else range(leaf.ndim)
        value = weight(torch_name(path[1:]), tuple(leaf.shape[i] for i in order))
        flat[path] = jnp.array(value.transpose(2, 3, 1, 0) if value.ndim == 4 else value)
    return flax.traverse_util.unflatten_dict(flat)


@functools.cache
def network(case: str) -> tuple:
    depth, stem, count, pixels = CASES[case]
    net, x = ResNet(depth=depth, stem=stem), jnp.array(images(count, pixels))
    shapes = jax.eval_shape(functools.partial(net.init, train=False), jax.random.key(0), x)
    return net, with_torch_weights(shapes), x


def close(got: jax.Array, want: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())


@pytest.mark.long
@pytest.mark.parametrize("case", [*sorted({*CASES} - {"resnet34"}), pytest.param("resnet34", marks=pytest.mark.slow)])
def test_equals_torchvision(case):
    net, variables, x = network(case)
    compiled = functools.partial(jax.jit, compiler_options=AS_USERS)
    evaluate = compiled(functools.partial(net.apply, train=False))
    close(evaluate(variables, x), STORED[f"{case}/before"], 2e-5)
    y, updates = compiled(functools.partial(net.apply, train=True, mutable=["batch_stats"]))(variables, x)
    close(y, STORED[f"{case}/train"], 1e-4)
    statistics = {torch_name(p): a for p, a in flax.traverse_util.flatten_dict(updates["batch_stats"]).items()}
    for name in STATISTICS:
        for kind in ("mean", "var"):
            close(statistics[f"{name}.running_{kind}"], STORED[f"{case}/{name}.{kind}"], 1e-4)
    close(evaluate(variables | updates, x), STORED[f"{case}/after"], 1e-4)


@pytest.mark.long
@pytest.mark.parametrize("case", ["resnet18_32px", pytest.param("resnet18_odd", marks=pytest.mark.slow)])
def test_gradients_equal_torchvision(case):
    net, variables, x = network(case)

    def loss(params):
        y, _ = net.apply(variables | {"params": params}, x, True, mutable=["batch_stats"])
        return jnp.sum(y * cotangent(y.shape))

    gradients = flax.traverse_util.flatten_dict(jax.jit(jax.grad(loss))(variables["params"]))
    named = {torch_name(path): to_torch(np.array(g)) for path, g in gradients.items()}
    for name in GRADIENTS:
        close(corner(named[name]), STORED[f"{case}/grad/{name}"], 1e-3)


@pytest.mark.long
def test_two_views_equal_two_passes():
    net, variables, _ = network("resnet18_32px")
    x = jnp.array(images(32, 32)).reshape(16, 2, 32, 32, 3)
    apply = jax.jit(functools.partial(net.apply, train=True, mutable=["batch_stats"]))
    both, updates = apply(variables, x)
    first, between = apply(variables, x[:, 0])
    second, after = apply(variables | between, x[:, 1])
    close(both, np.stack([first, second], 1), 1e-4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), updates, after)


@pytest.mark.parametrize(
    ("depth", "width", "features", "parameters"),
    [("resnet18", 64, 512, 11_176_512), ("resnet34", 64, 512, 21_284_672), ("resnet50", 64, 2048, 23_508_032)],
)
def test_sizes(depth, width, features, parameters):
    net = ResNet(depth=depth, width=width)
    init = functools.partial(net.init_with_output, train=False)
    y, variables = jax.eval_shape(init, jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
    assert y.shape == (2, features)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters


@pytest.mark.long
def test_bfloat16_keeps_parameters_and_statistics_in_float32():
    x = jnp.array(images(4, 8))
    results = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        net = ResNet(width=8, stem="small", dtype=dtype)
        shapes = jax.eval_shape(functools.partial(net.init, train=False), jax.random.key(0), x)
        run = jax.jit(functools.partial(net.apply, train=True, mutable=["batch_stats"]))
        results[dtype] = run(with_torch_weights(shapes), x)
        assert {leaf.dtype for leaf in jax.tree.leaves((results[dtype], shapes))} == {jnp.dtype(jnp.float32)}
    low, exact = (results[dtype][1]["batch_stats"]["bn1"]["var"] for dtype in (jnp.bfloat16, jnp.float32))
    close(low, np.array(exact), 0.01)
    assert not np.array_equal(low, exact)


def test_kernels_are_initialised_by_kaiming_fan_out():
    kernel = kaiming_normal(jax.random.key(0), (3, 3, 32, 64))
    np.testing.assert_allclose(kernel.std(), (2 / (9 * 64)) ** 0.5, rtol=0.02)
    assert np.abs(kernel).max() > 3 * kernel.std()


@pytest.mark.parametrize("settings", [{"depth": "resnet81"}, {"stem": "smal"}])
def test_unknown_settings(settings):
    with pytest.raises(UserError, match="did you mean"):
        ResNet(**settings).init(jax.random.key(0), jnp.zeros((2, 8, 8, 3)), False)


def textbook_pool(x: np.ndarray) -> np.ndarray:
    out = np.zeros((x.shape[0], (x.shape[1] + 1) // 2, (x.shape[2] + 1) // 2, x.shape[3]), x.dtype)
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            window = x[:, max(0, 2 * i - 1) : 2 * i + 2, max(0, 2 * j - 1) : 2 * j + 2]
            out[:, i, j] = window.max((1, 2))
    return out


@pytest.mark.parametrize("height, width", [(1, 1), (1, 8), (2, 3), (5, 8), (6, 1), (6, 3)])
def test_max_pool(height, width):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    expected = textbook_pool(x)
    dy = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    pads = [(0, 0), (1, 1), (1, 1), (0, 0)]
    native = functools.partial(jax.lax.reduce_window, init_value=-jnp.inf, computation=jax.lax.max)
    native = functools.partial(native, window_dimensions=(1, 3, 3, 1), window_strides=(1, 2, 2, 1), padding=pads)

    @jax.jit
    def pooled(x, dy):
        y, pull = jax.vjp(max_pool, x)
        return y, pull(dy)[0], jax.vjp(native, x)[1](dy)[0]

    y, gradient, want = pooled(x, dy)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(gradient, want, atol=1e-6)


@pytest.mark.long
def test_the_gradient_of_max_pool_goes_to_the_first_of_equal_values():
    # The windows start at pixels -1 and 1; their first pixels inside the image are 0 and 1.
    gradient = jax.grad(lambda x: max_pool(x).sum())(jnp.zeros((1, 4, 4, 1)))
    np.testing.assert_array_equal(gradient.squeeze(), np.outer([1, 1, 0, 0], [1, 1, 0, 0]))


@pytest.mark.parametrize("views", [1, 2])
def test_batch_norm(views):
    x = np.random.default_rng(0).normal(2, 3, size=(6, 3, 3, 5))
    norm = BatchNorm(views)
    variables = norm.init(jax.random.key(0), jnp.array(x, jnp.float32), False)
    y, updates = norm.apply(variables, jnp.array(x, jnp.float32), True, mutable=["batch_stats"])
    mean, var = np.zeros(5), np.ones(5)
    for view in range(views):
        part = x[view::views].reshape(-1, 5)
        mean, var = 0.9 * mean + 0.1 * part.mean(0), 0.9 * var + 0.1 * part.var(0, ddof=1)
        want = (part - part.mean(0)) / np.sqrt(part.var(0) + 1e-5)
        np.testing.assert_allclose(y[view::views].reshape(-1, 5), want, atol=1e-5)
    np.testing.assert_allclose(updates["batch_stats"]["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(updates["batch_stats"]["var"], var, rtol=1e-5)


@pytest.mark.long
def test_batch_norm_gradient_equals_the_formula():
    rng = np.random.default_rng(0)
    x, dy = (jnp.array(rng.normal(1, 2, size=(8, 2, 2, 3)), jnp.float32) for _ in range(2))
    scale, bias = jnp.array([0.5, 1.0, 2.0]), jnp.array([1.0, 0.0, -1.0])
    statistics = {"mean": jnp.zeros(3), "var": jnp.ones(3)}

    def ours(x, scale, bias):
        variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": statistics}
        return jnp.vdot(dy, BatchNorm().apply(variables, x, True, mutable=["batch_stats"])[0])

    def derived(x, scale, bias):
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return jnp.vdot(dy, (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias)

    got, want = (jax.grad(f, (0, 1, 2))(x, scale, bias) for f in (ours, derived))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), got, want)


def test_torch_dense_is_initialised_as_torch_linear():
    variables = Linear(300).init(jax.random.key(0), jnp.zeros((2, 100)))["params"]
    for leaf in (variables["kernel"], variables["bias"]):
        assert 0.095 < np.abs(leaf).max() <= 0.1
        np.testing.assert_allclose(leaf.std(), 0.1 / 3**0.5, rtol=0.1)


def test_mlp():
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    y, variables = MLP((5, 3)).init_with_output(jax.random.key(0), x)
    first, last = (variables["params"][f"linear_{i}"] for i in (0, 2))
    hidden = np.maximum(x @ first["kernel"] + first["bias"], 0)
    np.testing.assert_allclose(y, hidden @ last["kernel"] + last["bias"], atol=1e-5)
