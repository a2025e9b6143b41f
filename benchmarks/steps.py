"""The programs for `benchmarks.memory` and `benchmarks.scale`: functions ``(rows, mesh) -> Lowered``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec
from jax.stages import Lowered

from benchmarks import plans
from clustering_jax.losses import normalize, nt_xent
from clustering_jax.method import Spec
from clustering_jax.methods import METHODS
from clustering_jax.nn.chunks import chunked
from clustering_jax.nn.vit.clip import CLIP, CONFIGS
from clustering_jax.parallel import AXIS, batch_sharding, replicated

Lower = Callable[[int, Mesh], Lowered]
D = 128


def cc(backbone: str, size: int, **settings: Any) -> Lower:
    """A step of CC on images of `size` pixels, with ten clusters."""

    def lower(n, mesh):
        method = METHODS["cc"](Spec(10, n, 1, {"train": 1}), backbone=backbone, image_size=size, **settings)
        return plans.step(method, "contrast", {"image": ((n, size, size, 3), jnp.uint8)}, mesh)

    return lower


def cmmc(phase: str, **settings: Any) -> Lower:
    """A step of CMMC at the widths of BDGP, with five clusters."""
    views = {"view0": 1750, "view1": 79}

    def lower(n, mesh):
        method = METHODS["cmmc"](Spec(5, n, 1, {"train": 1}), **settings)
        return plans.step(method, phase, {v: ((n, d), jnp.float32) for v, d in views.items()}, mesh)

    return lower


def dxmc(**settings: Any) -> Lower:
    """A step of DXMC on 512 columns of CLIP, with ten clusters."""
    names = ("image", "text", "image_partner", "text_partner")

    def lower(n, mesh):
        method = METHODS["dxmc"](Spec(10, n, 1, {"train": 1}), **settings)
        return plans.step(method, "contrast", {name: ((n, 512), jnp.float32) for name in names}, mesh)

    return lower


def dmim(n: int, mesh: Mesh) -> Lowered:
    """A step of DMIM at the widths and clusters of NUS-WIDE."""
    method = METHODS["dmim"](Spec(8, n, 1, {"train": 1}))
    batch = {"view0": ((n, 100), jnp.float32), "view1": ((n, 100), jnp.float32), "pseudo": ((n, 1), jnp.int32)}
    return plans.step(method, "clusters", batch, mesh, ("pseudo",))


def contrast(impl: str) -> Lower:
    """The value and the gradient of `nt_xent` alone for `n` rows, half of them in each view."""

    def lower(n, mesh):
        loss = partial(nt_xent, impl=impl)
        if impl == "ring":
            loss = jax.shard_map(
                partial(loss, axis_name=AXIS), mesh=mesh, in_specs=PartitionSpec(AXIS), out_specs=PartitionSpec()
            )
        rows = jax.ShapeDtypeStruct((n // 2, D), jnp.float32, sharding=batch_sharding(mesh))
        return jax.jit(jax.value_and_grad(loss, (0, 1))).lower(rows, rows)

    return lower


def clip_images(name: str) -> Lower:
    """The features of images, without a gradient."""
    config = CONFIGS[name]

    def lower(n, mesh):
        features = partial(CLIP(config).apply, method="image_features")
        images, _ = _pairs(config, n)
        variables = {"params": _params(config)}
        return jax.jit(features, in_shardings=(replicated(mesh), batch_sharding(mesh))).lower(variables, images)

    return lower


def clip_tuning(name: str, *, remat: bool = False, chunk: int = 0) -> Lower:
    """A step of contrastive training of both towers with Adam. No method of the package does this."""
    config, tx = CONFIGS[name], optax.adam(1e-5)
    model = CLIP(config, remat=remat)

    def loss(params, images, ids):
        towers = (("image_features", images), ("text_features", ids))
        each = [
            chunked(partial(model.apply, {"params": params}, method=method), chunk)(rows) for method, rows in towers
        ]
        return nt_xent(*map(normalize, each), temperature=0.07, impl="blockwise")

    def update(params, state, images, ids):
        value, gradient = jax.value_and_grad(loss)(params, images, ids)
        updates, state = tx.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    def lower(n, mesh):
        params, whole, split = _params(config), replicated(mesh), batch_sharding(mesh)
        function = jax.jit(
            update, donate_argnums=(0, 1), in_shardings=(whole, whole, split, split), out_shardings=whole
        )
        return function.lower(params, jax.eval_shape(tx.init, params), *_pairs(config, n))

    return lower


def _pairs(config: Any, n: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    size = config.image_size
    images = jax.ShapeDtypeStruct((n, size, size, 3), jnp.uint8)
    return images, jax.ShapeDtypeStruct((n, config.context_length), jnp.int32)


def _params(config: Any) -> Any:
    return jax.eval_shape(CLIP(config).init, jax.random.key(0), *_pairs(config, 1))["params"]
