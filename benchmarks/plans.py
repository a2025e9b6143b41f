"""Memory and messages of compiled programs that are never run.

XLA's CPU backend replaces accelerators here. Two things are set as on accelerators: convolutions are not lowered to
matrix products (`native_convolutions`), and the recomputation of `jax.checkpoint` is kept (`OPTIONS`). The figures are
valid for an accelerator only as far as its compiler fuses, orders and pads in the same way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.stages import Compiled, Lowered

from clustering_jax.method import Method
from clustering_jax.nn.cpu import conv
from clustering_jax.training.update import init_state, make_update, optimizers

# Without the first the CPU backend drops the barriers around recomputation and merges it with the first computation.
OPTIONS = {"xla_disable_hlo_passes": "cse_barrier_expander", "xla_backend_optimization_level": 0}
SIZES = {"pred": 1, "u8": 1, "s8": 1, "bf16": 2, "f16": 2, "u32": 4, "s32": 4, "f32": 4, "u64": 8, "s64": 8, "f64": 8}
KINDS = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


class Collective(NamedTuple):
    """A collective operation: its results on one device by dtype and shape, how often it runs, and its name in JAX."""

    kind: str
    results: list[tuple[str, tuple[int, ...]]]
    times: int
    name: str

    @property
    def bytes(self) -> int:
        return self.times * sum(SIZES[kind] * math.prod(shape) for kind, shape in self.results)


def native_convolutions() -> None:
    """From now on, CPU programs use the convolutions of the other platforms."""
    conv.plan = lambda *_: conv.Plan(*["native"] * 3)


def step(method: Method, phase: str, batch: Mapping[str, tuple], mesh: Mesh, names: tuple[str, ...] = ()) -> Lowered:
    """Lowers a training step on a batch that comes from the host.

    Args:
      method: the method.
      phase: name of the phase.
      batch: ``{name: (shape, dtype)}`` of the features and the targets.
      mesh: the devices.
      names: names of the entries of `batch` that are targets.

    Returns:
      The lowered program.
    """
    chosen = next(p for p in method.phases if p.name == phase)
    shapes = {name: jax.ShapeDtypeStruct(*given) for name, given in batch.items()}
    features, targets = {k: v for k, v in shapes.items() if k not in names}, {k: shapes[k] for k in names}
    index = jax.ShapeDtypeStruct(next(iter(shapes.values())).shape[:1], jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(lambda key, batch: init_state(method, method.init(key, batch)), key, features)
    rows, one = {"index": jax.ShapeDtypeStruct((1, *index.shape), jnp.int32)}, jax.ShapeDtypeStruct((1,), jnp.int32)
    update = make_update(chosen, optimizers(method), mesh, resident=False)
    return update.lower(state, features, targets, rows, one, jax.ShapeDtypeStruct((), jnp.int32), key)


def memory(program: Compiled) -> int:
    """Bytes on a device while the program runs: arguments, results that reuse no argument, and temporary memory."""
    plan = program.memory_analysis()
    held = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return held + plan.temp_size_in_bytes


def collectives(text: str) -> Iterator[Collective]:
    """Reads the collectives of all computations from the text of a compiled program.

    Raises:
      ValueError: a loop with a collective has an unknown number of iterations.
    """
    bodies = dict(re.findall(r"^(?:ENTRY )?%([\w.-]+) [^\n]*\{\n(.*?)^\}", text, re.M | re.S))
    entry = re.search(r"^ENTRY %([\w.-]+)", text, re.M)
    yield from _within(bodies, entry[1], 1) if entry else ()


def _within(bodies: Mapping[str, str], name: str, times: int | None) -> Iterator[Collective]:
    for line in bodies[name].splitlines():
        match = re.search(rf" = (.*?) ({'|'.join(KINDS)})(?:-start)?\(", line)
        if match:
            if times is None:
                raise ValueError(f"runs an unknown number of times: {line}")
            label = re.search(r'op_name="([^"]*)"', line)
            yield Collective(match[2], shapes_of(match[1]), times, label[1] if label else "")
        for kind, called in re.findall(
            r"\b(body|calls|to_apply|branch_computations)=\{?(%[\w.-]+(?:, %[\w.-]+)*)", line
        ):
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
            factor = 1 if kind != "body" else int(trips[1]) if trips else None
            inner = times * factor if times and factor else None
            for callee in called.replace("%", "").split(", "):
                yield from _within(bodies, callee, inner)


def shapes_of(result: str) -> list[tuple[str, tuple[int, ...]]]:
    """The arrays in the result of an operation, by dtype and shape."""
    arrays = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", result)
    return [(kind, tuple(int(x) for x in shape.split(",") if x)) for kind, shape in arrays]
