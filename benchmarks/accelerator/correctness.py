"""Checks the results of the accelerator against float64 on the CPU or against exact results of NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from clustering_jax import losses
from clustering_jax.augment.pipeline import augment
from clustering_jax.augment.policies import cc_policy
from clustering_jax.kmeans import assign, kmeans
from clustering_jax.kmeans.neighbours import nearest_neighbours
from clustering_jax.methods.cc.method import Network, cluster_loss

if TYPE_CHECKING:
    from benchmarks.accelerator.parts import Context

SIMPLEX = ("cluster_contrast", "mutual_information", "consistency", "imbalance", "self_label_loss")
ROWS = ("nt_xent", "prior_kl")


def device(context: Context) -> None:
    """Names the device."""
    first = jax.devices()[0]
    context.write(jax=jax.__version__, kind=first.device_kind, platform=first.platform, count=jax.device_count())


def relative_error(result: np.ndarray, expected: np.ndarray) -> float:
    """Norm of the difference, divided by the norm of `expected`."""
    result, expected = np.asarray(result, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm((result - expected).ravel()) / max(np.linalg.norm(expected.ravel()), 1e-30))


def in_float64(function, *arrays):
    """Computes `function` of the arrays in float64 on the CPU."""
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        wide = [jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), array) for array in arrays]
        return jax.tree.map(np.asarray, jax.jit(function)(*wide))


def loss_arguments(name: str, rng: np.random.Generator, n: int) -> list[np.ndarray]:
    """Returns rows of unit length, or soft assignments, for the losses."""
    x = rng.normal(size=(2, n, 10 if name in SIMPLEX else 128)).astype(np.float32)
    if name in SIMPLEX:
        x = np.exp(6 * x) / np.exp(6 * x).sum(-1, keepdims=True)
    else:
        x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return [x[0]] if name == "imbalance" else list(x)


def check_losses(context: Context) -> None:
    """Checks value and gradient of each loss. Typical errors: 1e-6 in float32, 3e-4 in TF32, 1e-2 in bfloat16."""
    n, rng = (64 if context.toy else 4096), np.random.default_rng(0)
    for name in (*SIMPLEX, *ROWS):
        arguments = loss_arguments(name, rng, n)
        function = jax.value_and_grad(getattr(losses, name), argnums=tuple(range(len(arguments))))
        value, gradient = jax.jit(function)(*arguments)
        exact, exact_gradient = in_float64(function, *arguments)
        error = abs(float(value) - float(exact)) / max(abs(float(exact)), 1e-6)
        pair = (np.stack(gradient), np.stack(exact_gradient))
        context.write(loss=name, value_error=error, gradient_error=relative_error(*pair))


def check_network(context: Context) -> None:
    """Checks loss and gradient of a narrow CC network, in the three precisions that a user can choose."""
    views = context.images[:16].reshape(8, 2, 32, 32, 3).astype(np.float32) / 255

    def function(dtype: str):
        network = Network("resnet18", "small", 16, 10, 128, jnp.dtype(dtype))

        def loss(params, stats, views):
            (g, c), _ = network.apply({"params": params, "batch_stats": stats}, views, True, mutable=["batch_stats"])
            value = losses.nt_xent(losses.normalize(g[:, 0]), losses.normalize(g[:, 1]), temperature=0.5)
            return value + cluster_loss(c[:, 0], c[:, 1], 1.0)[0]

        return network, jax.value_and_grad(loss)

    network, _ = function("float32")
    variables = jax.tree.map(np.asarray, jax.jit(lambda key, x: network.init(key, x, True))(jax.random.key(0), views))
    arguments = variables["params"], variables["batch_stats"], views
    exact = in_float64(function("float64")[1], *arguments)
    for dtype, precision in (("float32", "highest"), ("float32", "default"), ("bfloat16", "default")):
        with jax.default_matmul_precision(precision):
            value, gradient = jax.jit(function(dtype)[1])(*arguments)
        flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (gradient, exact[1])]
        error = abs(float(value) - float(exact[0])) / abs(float(exact[0]))
        context.write(network=dtype, precision=precision, value_error=error, gradient_error=relative_error(*flat))


def check_augmentation(context: Context) -> None:
    """Checks that the random bits are those of the CPU, and the pixels equal up to rounding."""
    images, index, key = context.images[:32], np.arange(len(context.images[:32])), jax.random.key(3)
    function = jax.jit(lambda key, x, index: augment(key, x, index, 1, cc_policy(32, 0.5, True)))
    here = np.asarray(function(key, images, index))
    with jax.default_device(jax.devices("cpu")[0]):
        there = np.asarray(function(*jax.device_put((key, images, index), jax.devices("cpu")[0])))
    context.write(augmentation="cc", largest_difference=float(np.abs(here - there).max()))


def check_clusters(context: Context) -> None:
    """Compares labels with exact distances, inertia with scikit-learn, and neighbours with a sort in float64."""
    from sklearn.cluster import KMeans

    n, d, k = (500, 16, 5) if context.toy else (8192, 128, 10)
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(k, d))[rng.integers(k, size=n)] + 1.5 * rng.normal(size=(n, d))).astype(np.float32)
    result = kmeans(jax.random.key(0), jnp.asarray(x), k, restarts=10)
    squares = ((x[:, None].astype(np.float64) - np.asarray(result.centers, np.float64)) ** 2).sum(-1)
    labels = np.asarray(assign(jnp.asarray(x), result.centers)[0])
    peer = KMeans(k, n_init=10, random_state=0).fit(x).inertia_
    context.write(
        kmeans_labels_equal=float((squares.argmin(1) == labels).mean()), inertia_ratio=float(result.inertia) / peer
    )
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    near = np.asarray(nearest_neighbours(jnp.asarray(x), 10))
    context.write(neighbours_equal=float((near == np.argsort(-cosine, 1)[:, :10]).mean()))


def everything(context: Context) -> None:
    """Runs all checks, one after the other."""
    for check in (check_losses, check_network, check_augmentation, check_clusters):
        check(context)
