"""Time and temporary memory of NT-Xent (value and gradient, d = 128) in its dense, blockwise and ring forms.

    python -m benchmarks.contrastive                      (half a minute)
    python -m benchmarks.contrastive --devices=4          (memory on each of 4 devices)
    python -m benchmarks.contrastive --rows=262144        (one blockwise pass over this number of rows, two minutes)

Numbers of rows count both views. The first command prints the times of the dense and the blockwise form on one device,
which take turns (the fastest of `ROUNDS` rounds counts), and their ratio. Like the second command, it then prints the
memory that the compiled programs need beside arguments and results, without running them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from clustering_jax.losses import nt_xent
from clustering_jax.parallel import AXIS, data_mesh

D, ROUNDS = 128, 5
TIMED = (1024, 2048, 4096, 8192)
MEASURED = (4096, 16384, 32768)


def gradient(impl: str) -> Callable:
    """Compiles the value and the gradient for two views."""
    return jax.jit(jax.value_and_grad(partial(nt_xent, impl=impl), (0, 1)))


def ring(mesh: Mesh) -> Callable:
    """The same as `gradient`, over the devices of `mesh`."""
    loss = partial(nt_xent, impl="ring", axis_name=AXIS)
    mapped = jax.shard_map(loss, mesh=mesh, in_specs=PartitionSpec(AXIS), out_specs=PartitionSpec())
    return jax.jit(jax.value_and_grad(mapped, (0, 1)))


def unit_views(rows: int) -> np.ndarray:
    """Two views [2, rows / 2, D], float32 rows of norm 1. The second view is close to the first."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(rows // 2, D)).astype(np.float32)
    both = np.stack([a, a + rng.normal(size=a.shape).astype(np.float32)])
    return both / np.linalg.norm(both, axis=2, keepdims=True)


def seconds(function: Callable, views: np.ndarray) -> float:
    """Measures one call."""
    began = time.perf_counter()
    jax.block_until_ready(function(*views))
    return time.perf_counter() - began


def temporary(function: Callable, rows: int, sharding: NamedSharding | None = None) -> float:
    """Temporary memory on each device in MiB."""
    shape = jax.ShapeDtypeStruct((rows // 2, D), jnp.float32, sharding=sharding)
    return function.lower(shape, shape).compile().memory_analysis().temp_size_in_bytes / 2**20


def times() -> None:
    """Prints the milliseconds of both forms."""
    print(f"{'rows':>8}{'dense ms':>12}{'blockwise ms':>14}{'times as fast':>15}")
    for rows in TIMED:
        views, forms = unit_views(rows), [gradient("dense"), gradient("blockwise")]
        rounds = [[seconds(form, views) for form in forms] for _ in range(1 + ROUNDS)]
        dense, blockwise = (1e3 * min(column) for column in zip(*rounds[1:], strict=True))  # the first compiles
        print(f"{rows:8,}{dense:12.1f}{blockwise:14.1f}{dense / blockwise:15.2f}", flush=True)


def memory(devices: int) -> None:
    """Prints the MiB of all forms on each device."""
    mesh = data_mesh(devices)
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    forms = {"dense": gradient("dense"), "blockwise": gradient("blockwise"), "ring": ring(mesh)}
    print(f"\n{'MiB of rows':>12}" + "".join(f"{f'{name} on {devices}':>16}" for name in forms))
    for rows in MEASURED:
        sizes = [temporary(form, rows, sharding) for form in forms.values()]
        print(f"{rows:12,}" + "".join(f"{size:16,.1f}" for size in sizes), flush=True)


def once(rows: int) -> None:
    """Prints the memory, the seconds, the loss and the norm of the gradient of one blockwise pass."""
    compiled, views = gradient("blockwise"), unit_views(rows)
    print(f"{rows:,} rows, {temporary(compiled, rows):,.0f} MiB", flush=True)
    began = time.perf_counter()
    value, gradients = jax.device_get(compiled(*views))
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradients))
    print(f"{time.perf_counter() - began:,.0f} s, loss {value:.6f}, norm of the gradient {norm:.6g}")


def main() -> None:
    """Prints the tables, or the figures of one pass over `--rows` rows."""
    parser = argparse.ArgumentParser("python -m benchmarks.contrastive")
    parser.add_argument("--rows", type=int, help="run blockwise once on so many rows instead")
    parser.add_argument("--devices", type=int, default=1)
    args = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", args.devices)
    if args.rows:
        once(args.rows)
        return
    if args.devices == 1:
        times()
    memory(args.devices)


if __name__ == "__main__":
    main()
