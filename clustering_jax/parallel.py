"""Devices and processes: the mesh, shardings, and communication between processes and between devices.

No other module asks how many devices or processes there are. The training loop runs under `jax.jit` on a mesh with the
single axis ``"data"``. Batches are split along this axis and everything else is replicated, so every loss and every
batch statistic is computed over the global batch. With several processes, all of them run the same program, each on
its own devices. Only process 0 writes files and prints.

The collectives at the end of this file are for code that runs per device (`jax.shard_map`, `jax.pmap`). With
``axis_name=None`` they are the identity, so the same function also works without a mapped axis.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from clustering_jax.errors import UserError
from clustering_jax.typing import Array

AXIS = "data"
_BARRIER_IDS = itertools.count()  # each barrier needs a name of its own


def by_backend(cpu: int, other: int) -> int:
    """A size that depends on the default backend: small blocks stay in a CPU's cache, a GPU or a TPU needs large ones.

    Args:
      cpu: the size on a CPU.
      other: the size on any other backend.
    """
    return cpu if jax.default_backend() == "cpu" else other


def connect(coordinator: str | None, num_processes: int | None, process_id: int | None, heartbeat: int) -> None:
    """Connects the processes of one run. Call this before JAX initialises its backend.

    Afterwards only process 0 shows Python warnings. If the first three arguments are None, JAX reads them from SLURM's
    environment variables or from the TPU's metadata.

    Args:
      coordinator: "HOST:PORT" of process 0.
      num_processes: number of processes in the run.
      process_id: index of this process, in [0, num_processes).
      heartbeat: seconds without a heartbeat after which a process counts as dead and the other processes stop.

    Raises:
      UserError: the arguments are None and there is neither a SLURM job nor a TPU.
    """
    address = (coordinator, num_processes, process_id)
    join = partial(jax.distributed.initialize, *address, heartbeat_timeout_seconds=heartbeat)
    try:
        # In another thread: the main thread handles signals, but not while it waits inside `initialize`.
        ThreadPoolExecutor(1).submit(join).result()
    except ValueError as error:
        raise UserError(
            f"--distributed=auto finds neither SLURM's variables nor a TPU's metadata ({error}): give --coordinator, "
            "--num_processes and --process_id"
        ) from error
    if not is_first():
        warnings.simplefilter("ignore")


def is_first() -> bool:
    """Whether this is process 0, the process that writes and prints."""
    return jax.process_index() == 0


def any_process(flag: bool) -> Array | bool:
    """Whether `flag` is true in any process. All processes get the same answer.

    With several processes the result is an array that is still being computed; reading its value blocks.
    """
    if jax.process_count() == 1:
        return flag
    mesh, any_on_mesh = _any_on_mesh()
    return any_on_mesh(jax.make_array_from_callback((mesh.size,), batch_sharding(mesh), lambda _: np.full(1, flag)))


@cache
def _any_on_mesh() -> tuple[Mesh, Callable]:
    mesh = data_mesh(jax.device_count())
    return mesh, jax.jit(jnp.any, out_shardings=replicated(mesh))


def any_process_blocking(flag: bool) -> bool:
    """`any_process`, but waits for the result. It is also a barrier: no process continues before all have called it."""
    _barrier()
    return bool(any_process(flag))


def broadcast_from_first(tree: Any) -> Any:
    """Returns process 0's arrays in every process. The shapes must be the same in all processes."""
    _barrier()
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


def text_of_first(text: str) -> str:
    """Returns process 0's text in every process."""
    if jax.process_count() == 1:
        return text
    sent = np.frombuffer(text.encode(), np.uint8)
    size = int(broadcast_from_first(np.array(len(sent), np.int32)))
    received = broadcast_from_first(np.resize(sent, size))
    return np.asarray(received).astype(np.uint8).tobytes().decode()


def _barrier() -> None:
    """Waits until all processes are here, up to a day. The CPU backend's collectives would give up after 30 seconds."""
    if jax.process_count() > 1:
        # Imported here because the import takes seconds and the losses import this module.
        from orbax.checkpoint import multihost

        multihost.get_barrier_sync_fn()(key=f"clustering_jax {next(_BARRIER_IDS)}", timeout_ms=24 * 3600 * 1000)


def data_mesh(batch_size: int, devices: list | None = None) -> Mesh:
    """Mesh over the largest number of devices that divides `batch_size`. It warns if devices stay idle.

    Args:
      batch_size: global batch size, in rows.
      devices: devices to choose from; None means all devices.

    Returns:
      Mesh with the single axis "data".

    Raises:
      UserError: there are several processes and some devices would stay idle. Every process needs a part of the batch.
    """
    devices = jax.devices() if devices is None else devices
    count = max(d for d in range(1, len(devices) + 1) if batch_size % d == 0)
    if count < len(devices) and jax.process_count() > 1:
        raise UserError(
            f"batch size {batch_size} is not a multiple of the {len(devices)} devices of {jax.process_count()} "
            f"processes: set batch_size to a multiple of {len(devices)}"
        )
    if count < len(devices):
        warnings.warn(
            f"batch size {batch_size} is not a multiple of the {len(devices)} devices: using {count}; "
            f"choose a multiple of {len(devices)} to use all",
            stacklevel=1,  # always the same line, so Python shows the warning once
        )
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=devices[:count])


def device_per_core() -> None:
    """Makes every CPU core one device of JAX's CPU backend. Call this before JAX initialises its backend.

    The CPU backend does not use all cores well for a single program: prediction with a ResNet-18 is 1.5 times faster
    when each core is a device with its own rows. Training does not gain, because every layer exchanges batch
    statistics. Accelerators are not affected. A number of devices that is already set in XLA_FLAGS is kept.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of parameters, optimiser states and resident data: every device holds a full copy."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Sharding of a batch: dimension `axis` is split over the devices, the others are not."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies the arrays of `tree` to every device of `mesh`.

    Every process must pass the same values. Leaves may be typed random keys.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, replicated(mesh))

    def put(x: Any) -> Array:
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return x
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(x)))
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, replicated(mesh), lambda index: host[index])

    return jax.tree.map(put, tree)


def local(tree: Any) -> Any:
    """This process's copy of replicated arrays, for computations that each process runs on its own."""
    return tree if jax.process_count() == 1 else jax.tree.map(lambda x: x.addressable_data(0), tree)


def batch_rows(source: np.ndarray, index: np.ndarray, mesh: Mesh) -> Array:
    """The batch ``source[index]``, split over the devices. Each process reads only the rows of its own devices.

    Args:
      source: [n, ...] array on the host, or a sequence that is read like one.
      index: int [b], row numbers of the global batch.
      mesh: mesh of `data_mesh`.

    Returns:
      [b, ...] array with the sharding `batch_sharding`.

    Raises:
      UserError: the number of devices does not divide the number of rows.
    """
    if len(index) % mesh.size:
        raise UserError(
            f"a step on all {len(index)} rows can't be shared by {mesh.size} devices while the data stay on the host: "
            "raise run.resident_gib above their size"
        )

    def read(shard: Any) -> np.ndarray:
        return np.asarray(source[index[shard[0]]])

    return jax.make_array_from_callback((len(index), *source.shape[1:]), batch_sharding(mesh), read)


def local_batch_indices(count: int, mesh: Mesh) -> np.ndarray:
    """Positions in a batch of `count` rows that lie on this process's devices, int [local rows], ascending."""
    shards = batch_sharding(mesh).addressable_devices_indices_map((count,)).values()
    return np.unique(np.concatenate([np.arange(count)[shard] for shard in shards]))


def gather(x: Array, axis_name: str | None) -> Array:
    """Gathers the rows of all devices, in device order: ``[n, ...] -> [devices * n, ...]``."""
    return x if axis_name is None else lax.all_gather(x, axis_name, tiled=True)


def psum(x: Array, axis_name: str | None) -> Array:
    """Sum over devices."""
    return x if axis_name is None else lax.psum(x, axis_name)


def pmean(x: Array, axis_name: str | None) -> Array:
    """Mean over devices."""
    return x if axis_name is None else lax.pmean(x, axis_name)


def axis_size(axis_name: str | None) -> int:
    """Number of devices along `axis_name`."""
    return 1 if axis_name is None else lax.axis_size(axis_name)


def axis_index(axis_name: str | None) -> Array | int:
    """Index of this device along `axis_name`."""
    return 0 if axis_name is None else lax.axis_index(axis_name)
