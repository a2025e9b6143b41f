"""The one place that knows how many devices and processes there are.

The loop is `jax.jit` over a mesh with the single axis ``"data"``: batches are split over it, everything else is
replicated, and so every loss and batch statistic is that of the global batch. Several processes run the same program,
each on its own devices; one of them, the first, writes and prints. The collectives below are for code that runs per
device (`jax.shard_map`, `jax.pmap`); with ``axis_name=None`` they are the identity, so that one kernel serves both.
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
_MEETINGS = itertools.count()  # no two have the same name


def connect(coordinator: str | None, num_processes: int | None, process_id: int | None, heartbeat: int) -> None:
    """Joins the processes of one run; to be called before JAX starts. From then on only the first of them warns.

    Args:
      coordinator: "HOST:PORT" of the first process. num_processes: of the run. process_id: of this one, from 0. All
        three None: as SLURM's variables or the TPU's metadata say.
      heartbeat: seconds without a sign of life after which a process counts as dead, and the others end.

    Raises:
      UserError: there is neither SLURM nor a TPU to ask.
    """
    own = (coordinator, num_processes, process_id)
    join = partial(jax.distributed.initialize, *own, heartbeat_timeout_seconds=heartbeat)
    try:
        # In a thread, as signals are heard by this one, and not while it waits for the others.
        ThreadPoolExecutor(1).submit(join).result()
    except ValueError as error:
        raise UserError(
            f"--distributed=auto finds neither SLURM's variables nor a TPU's metadata ({error}): give --coordinator, "
            "--num_processes and --process_id"
        ) from error
    if not is_first():
        warnings.simplefilter("ignore")


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def any_process(flag: bool) -> Array | bool:
    """Whether `flag` is set in any process, the same for all; with several, an array that is not waited for."""
    if jax.process_count() == 1:
        return flag
    mesh, any_of = _any_of()
    return any_of(jax.make_array_from_callback((mesh.size,), batch_sharding(mesh), lambda _: np.full(1, flag)))


@cache
def _any_of() -> tuple[Mesh, Callable]:
    mesh = data_mesh(jax.device_count())
    return mesh, jax.jit(jnp.any, out_shardings=replicated(mesh))


def agreed(flag: bool) -> bool:
    """`any_process`, waited for; so none goes on before all have come here."""
    _meet()
    return bool(any_process(flag))


def from_first(tree: Any) -> Any:
    """The first process's arrays, which must have the same shapes in all."""
    _meet()
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


def _meet() -> None:
    """Waits for all processes; who does so in a collective of the CPU backend is given up after 30 seconds."""
    if jax.process_count() > 1:
        from orbax.checkpoint import multihost  # takes seconds, and losses import this file

        multihost.get_barrier_sync_fn()(key=f"clustering_jax {next(_MEETINGS)}", timeout_ms=24 * 3600 * 1000)


def data_mesh(batch_size: int, devices: list | None = None) -> Mesh:
    """Mesh over the largest number of devices that divides `batch_size`; warns when some stay idle.

    Raises:
      UserError: some would with several processes, where a process without a part of the batch can't go on.
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
            stacklevel=1,  # one place, so that it is shown once
        )
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=devices[:count])


def device_per_core() -> None:
    """Makes every core of the host one device of JAX's CPU backend; to be called before JAX starts.

    The backend spreads one program over the cores unevenly: prediction with ResNet18 is 1.5 times faster when each core
    has rows of its own. Training is not, since its batch statistics are exchanged in every layer. Accelerators, and a
    number of devices that XLA_FLAGS already sets, stay as they are.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of parameters, optimiser states and resident data: a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Sharding of a batch: dimension `axis` is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The same value on every device; each process must have it. Random keys are leaves like others."""
    if jax.process_count() == 1:
        return jax.device_put(tree, replicated(mesh))

    def put(x: Any) -> Array:
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return x
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(x)))
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, replicated(mesh), lambda at: host[at])

    return jax.tree.map(put, tree)


def local(tree: Any) -> Any:
    """This process's copy of replicated arrays, for what each process computes alone."""
    return tree if jax.process_count() == 1 else jax.tree.map(lambda x: x.addressable_data(0), tree)


def batch_rows(source: np.ndarray, index: np.ndarray, mesh: Mesh) -> Array:
    """``source[index]`` as a batch, of which each process reads the rows of its own devices alone.

    Raises:
      UserError: a number of rows that the devices can't share evenly.
    """
    if len(index) % mesh.size:
        raise UserError(
            f"a step on all {len(index)} rows can't be shared by {mesh.size} devices while the data stay on the host: "
            "raise run.resident_gib above their size"
        )

    def read(at: Any) -> np.ndarray:
        return np.asarray(source[index[at[0]]])

    return jax.make_array_from_callback((len(index), *source.shape[1:]), batch_sharding(mesh), read)


def own_places(count: int, mesh: Mesh) -> np.ndarray:
    """Which places of a batch of `count` rows are on this process's devices, int, rising."""
    slices = batch_sharding(mesh).addressable_devices_indices_map((count,)).values()
    return np.unique(np.concatenate([np.arange(count)[at] for at in slices]))


def gather(x: Array, axis_name: str | None) -> Array:
    """Rows of all devices, in device order: ``[n, ...] -> [devices * n, ...]``."""
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
    """This device's place along `axis_name`."""
    return 0 if axis_name is None else lax.axis_index(axis_name)
