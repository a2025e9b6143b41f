"""Recomputing blocks in the backward pass changes only the memory: no value, gradient, statistic or name."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.plans import OPTIONS
from clustering_jax.method import Spec
from clustering_jax.methods import METHODS
from clustering_jax.nn.resnet import ResNet
from clustering_jax.nn.vit.clip import CLIP, CONFIGS


def gradient(apply):
    """Turns ``apply(variables, x) -> y, changed`` into a compiled ``(variables, x) -> gradient, changed``."""

    def loss(params, variables, x):
        y, changed = apply({**variables, "params": params}, x)
        return jnp.sum(y * jnp.sin(jnp.arange(y.size).reshape(y.shape))), changed

    return jax.jit(lambda variables, x: jax.grad(loss, has_aux=True)(variables["params"], variables, x))


def resnet(depth, width, remat):
    """Returns the initial variables of a ResNet and its gradient in training."""
    network = ResNet(depth, width=width, remat=remat)
    apply = partial(network.apply, train=True, mutable=["batch_stats"])
    return partial(network.init, jax.random.key(0), train=True), gradient(apply)


@pytest.mark.parametrize("depth", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
@pytest.mark.long
def test_resnet(depth):
    """Two views, each with one update of the running statistics."""
    x = np.random.default_rng(0).random((8, 2, 16, 16, 3)).astype(np.float32)
    (init, plain), (other, again) = (resnet(depth, 4, remat) for remat in (False, True))
    variables = jax.jit(init)(x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, jax.eval_shape(other, x))
    ours, theirs = again(variables, x), plain(variables, x)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())
    before, after = (tree["batch_stats"]["layer2_0"]["bn1"]["var"] for tree in (variables, theirs[1]))
    assert np.abs(after - before).max() > 0.1


def temporary(function, variables, x):
    """Temporary bytes of a program whose recomputation the compiler does not remove."""
    return function.lower(variables, x).compile(OPTIONS).memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
    "depth, size, part", [("resnet18", 32, 0.7), pytest.param("resnet50", 224, 0.4, marks=pytest.mark.slow)]
)
@pytest.mark.long
def test_resnet_takes_less_memory(depth, size, part):
    x = jax.ShapeDtypeStruct((16, size, size, 3), np.float32)
    (init, plain), (_, again) = (resnet(depth, 16, remat) for remat in (False, True))
    variables = jax.eval_shape(init, x)
    assert temporary(again, variables, x) < part * temporary(plain, variables, x)


@pytest.mark.slow
def test_clip_takes_less_memory():
    x = jax.ShapeDtypeStruct((64, 224, 224, 3), np.uint8)
    models = [CLIP(CONFIGS["ViT-B/32"], remat=remat) for remat in (False, True)]
    variables = jax.eval_shape(partial(models[0].init, method="image_features"), jax.random.key(0), x)
    functions = [gradient(lambda v, x, m=m: (m.apply(v, x, method="image_features"), {})) for m in models]
    plain, again = (temporary(function, variables, x) for function in functions)
    assert again < 0.5 * plain


@pytest.mark.long
def test_a_setting_of_cc():
    batch = {"image": np.zeros((4, 8, 8, 3), np.uint8), "index": np.arange(4, dtype=np.int32)}
    for remat in (False, True):
        method = METHODS["cc"](Spec(3, 4, 1, {"train": 1}), backbone="resnet18", width=4, image_size=8, remat=remat)
        variables = jax.eval_shape(method.init, jax.random.key(0), batch)
        program = jax.make_jaxpr(method.phases[0].objectives[0].loss)(variables, batch, jax.random.key(0))
        assert ("remat" in str(program)) == remat
