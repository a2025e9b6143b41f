"""The loop, written once.

Batches and keys are pure functions of (seed, step): a run is resumed from its step, its state and its phase's targets,
and ends bitwise where an uninterrupted one does on the same devices. Several seeds train side by side in one program:
every array of the state then has them as its first dimension.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from clustering_jax.data.base import Dataset
from clustering_jax.errors import UserError
from clustering_jax.method import Method, Phase
from clustering_jax.parallel import (
    any_process,
    batch_sharding,
    broadcast_from_first,
    data_mesh,
    local,
    replicate,
    replicated,
)
from clustering_jax.training.batches import Feed, taken
from clustering_jax.training.checkpoint import Store
from clustering_jax.training.log import MetricsLog
from clustering_jax.training.signals import Diverged, Interrupted, Signals

# Steps of one compiled loop, at most: dispatch is paid once for all of them.
LOOP_STEPS = 16


@flax.struct.dataclass
class TrainState:
    """Everything that training changes: the step (int32 []), Flax variables, one optimiser state per optimiser."""

    step: jax.Array
    variables: Any
    opt_states: tuple


class Schedule(NamedTuple):
    """When the loop does what, in steps; 0 is never. resident_bytes: larger data sets stay on the host."""

    log_every: int = 50
    evaluate_every: int = 0
    checkpoint_every: int = 0
    resident_bytes: int = 4 << 30


def optimizers(method: Method) -> list[optax.GradientTransformation]:
    """The distinct optimisers of a method, in order of first use."""
    found: list[optax.GradientTransformation] = []
    for objective in (o for phase in method.phases for o in phase.objectives):
        if not any(objective.tx is tx for tx in found):
            found.append(objective.tx)
    return found


def init_state(method: Method, variables: Any, seeds: int = 1) -> TrainState:
    """State before the first step; with several seeds, `variables` and the state have them as the first dimension."""
    if seeds > 1:
        return jax.vmap(partial(init_state, method))(variables)
    opt_states = tuple(tx.init(variables["params"]) for tx in optimizers(method))
    return TrainState(step=jnp.zeros((), jnp.int32), variables=variables, opt_states=opt_states)


def train_step(phase: Phase, txs: list, state: TrainState, batch: Mapping, key: jax.Array) -> tuple[TrainState, dict]:
    """One step: every objective of the phase in turn on one batch. Returns the state and the terms of its losses."""
    variables, opt_states, terms = dict(state.variables), list(state.opt_states), {}
    for objective in phase.objectives:

        def loss(params, variables=variables, objective=objective):
            return objective.loss({**variables, "params": params}, batch, key)

        (value, (changed, named)), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        slot = next(i for i, tx in enumerate(txs) if tx is objective.tx)
        updates, opt_states[slot] = objective.tx.update(grads, opt_states[slot], variables["params"])
        variables = {**variables, **changed, "params": optax.apply_updates(variables["params"], updates)}
        terms = {
            **terms,
            **named,
            "loss": terms.get("loss", 0.0) + value,
            "grad_norm": optax.tree.norm(grads),
        }
    return TrainState(state.step + 1, variables, tuple(opt_states)), terms


def make_update(phase: Phase, txs: list, mesh: Mesh, resident: bool, seeds: int = 1) -> Callable:
    """Compiles ``update(state, data, targets, rows, epochs, count, key) -> (state, {term: [s]})``.

    data, targets, rows ``{name: [s, b]}``, epochs ``[s]``, count <= s, the steps to take: as `Feed` gives them. The
    state is donated; of the terms the first `count` are told. With several seeds the state, the key and the targets
    have them as the first dimension, and each term is ``[s, seeds]``.
    """

    def one(data, targets, key, state, inputs):
        rows, epoch = inputs
        # Here rather than as an argument's sharding, which the number of rows would have to divide.
        rows = {k: jax.lax.with_sharding_constraint(v, batch_sharding(mesh, axis=v.ndim - 1)) for k, v in rows.items()}

        def step(state, targets, key, rows):
            batch, key = {**data, **targets}, jax.random.fold_in(key, epoch)
            batch = taken(batch, rows) if resident else batch
            if phase.partners:
                batch |= drawn_partners(data, batch.pop(phase.partners), rows["index"], key)
            return train_step(phase, txs, state, {**batch, "index": rows["index"]}, key)

        if seeds > 1:
            per_seed = 0 if rows["index"].ndim > 1 else None
            step = jax.vmap(step, in_axes=(0, 0, 0, per_seed))
        return step(state, targets, key, rows)

    def update(state, data, targets, rows, epochs, count, key):
        step, length = partial(one, data, targets, key), len(epochs)

        def inputs(i):
            return {name: found[i] for name, found in rows.items()}, epochs[i]

        if length == 1:
            state, terms = step(state, inputs(0))
            return state, jax.tree.map(lambda x: x[None], terms)

        def body(i, carry):
            state, terms = step(carry[0], inputs(i))
            return state, jax.tree.map(lambda told, x: told.at[i].set(x), carry[1], terms)

        _, shapes = jax.eval_shape(step, state, inputs(0))
        # A loop of any count is one program; a scan would be compiled for every length.
        return jax.lax.fori_loop(
            0, count, body, (state, jax.tree.map(lambda x: jnp.zeros((length, *x.shape), x.dtype), shapes))
        )

    whole = replicated(mesh)
    rows = whole if resident else batch_sharding(mesh)
    in_shardings = (whole, rows, rows, whole, whole, whole, whole)
    return jax.jit(update, donate_argnums=0, in_shardings=in_shardings, out_shardings=whole)


def drawn_partners(data: Mapping[str, Any], partners: jax.Array, index: jax.Array, key: jax.Array) -> dict[str, Any]:
    """Features of one partner of each row, drawn by the key and the row's number alone.

    Args:
      data: whole features [n, ...] by name.
      partners: int [b, m], the rows to choose from.
      index: int [b], the rows of the batch.
      key: random key of the epoch.

    Returns:
      ``{"FEATURE_partner": [b, ...]}``.
    """
    draw = jax.vmap(lambda row: jax.random.randint(jax.random.fold_in(key, row), (), 0, partners.shape[1]))
    chosen = jnp.take_along_axis(partners, draw(index)[:, None], axis=1)[:, 0]
    return {f"{name}_partner": rows[chosen] for name, rows in data.items()}


class Place(NamedTuple):
    """Where a step of the run falls: its phase, that phase's first and last step, the steps its stream saw before."""

    phase: Phase
    first: int
    end: int
    stream_step: int


def locate(phases: tuple[Phase, ...], step: int) -> Place:
    """The `Place` of a step; the step after the last belongs to the last phase."""
    first, seen = 0, dict.fromkeys((p.stream for p in phases), 0)
    for number, phase in enumerate(phases, start=1):
        end = first + phase.num_steps
        if step < end or number == len(phases):
            break
        first, seen[phase.stream] = end, seen[phase.stream] + phase.num_steps
    return Place(phase, first, end, seen[phase.stream] + step - first)


def next_stop(step: int, end: int, chunk: int, schedule: Schedule) -> int:
    """The step up to which the loop may run in one call: a function of `step` alone, so that a resumed run splits as
    an uninterrupted one does."""
    periods = [p for p in (chunk, schedule.log_every, schedule.evaluate_every, schedule.checkpoint_every) if p]
    return min([end] + [(step // p + 1) * p for p in periods])


def fit(
    method: Method,
    streams: Mapping[str, Dataset],
    variables: Any,
    *,
    seeds: Sequence[int],
    batch_size: int,
    schedule: Schedule,
    store: Store,
    open_log: Callable[[int, int], MetricsLog],
    meta: Mapping[str, Any],
    infer: Callable,
    evaluate: Callable[[Any], dict[str, float]],
    signals: Signals | None = None,
) -> tuple[TrainState, float]:
    """Trains `method` from the newest checkpoint of `store`, or from `variables`.

    Args:
      method: what to train.
      streams: data sets by the names the phases use.
      variables: initial Flax variables, for several seeds with these as the first dimension.
      seeds: of batches, augmentation and noise, one for each run trained. batch_size: global, over all devices.
      schedule: when to log, evaluate and save; it is saved at the end in any case.
      store: checkpoints. open_log: the log at ``(first step, total steps)``. meta: JSON for each checkpoint.
      infer: as `Phase.targets` takes it.
      evaluate: ``(variables) -> {name: score}``.
      signals: entered already; None enters its own. When one of several processes is signalled, all stop at one step.

    Returns:
      The final state and the seconds spent over all the runs that led to it.

    Raises:
      Interrupted: after a signal, with the step reached saved. Diverged: a loss was not finite.
      UserError: the checkpoints are damaged or can't be written.
    """
    mesh, txs = data_mesh(batch_size), optimizers(method)
    total = sum(phase.num_steps for phase in method.phases)
    state = replicate(init_state(method, variables, len(seeds)), mesh)
    start, state, targets, spent = _resume(store, state)
    step = start
    feed = Feed(streams, seeds=seeds, batch_size=batch_size, mesh=mesh, limit=schedule.resident_bytes)
    slow_loop = method.avoid_scan_on_cpu and mesh.devices.flat[0].platform == "cpu"
    if any(phase.partners for phase in method.phases) and not feed.resident:
        raise UserError(
            "a phase draws neighbours of its rows, which needs all data on the device: raise run.resident_gib"
        )
    chunk = LOOP_STEPS if feed.resident and not slow_loop else 1
    key, began = replicate(keys_of(seeds), mesh), time.monotonic() - spent
    updates: dict[tuple[int, bool], Callable] = {}
    asked: Any = False
    with nullcontext(signals) if signals else Signals() as signals, open_log(start, total) as log:
        while True:
            phase, first, end, stream_step = locate(method.phases, step)
            # Several processes go by the answer to the question of the last round: it is there without a wait.
            stopping = signals.caught if jax.process_count() == 1 else bool(asked)
            # A checkpoint is written after its step's evaluation: a resumed run has both already.
            if step > start and _due(step, schedule.evaluate_every):
                _check(log.flush(step, phase.name), step)
                log.report(step, evaluate(state.variables))
            if _due(step, schedule.checkpoint_every) or stopping or step == total:
                _check(log.flush(step, phase.name), step)
                store.save(step, state, targets, {**meta, "seconds": time.monotonic() - began})
                log.restart(step)
            if step == total:
                return state, time.monotonic() - began
            if stopping:
                raise Interrupted(f"stopped by a signal; step {step} of {total} is saved, the same command resumes")
            if step == first:
                targets = _targets(phase, first, *local((key, state.variables)), infer, len(seeds))
            stop = next_stop(step, end, chunk, schedule)
            # Phases that repeat (an epoch of two streams) share their objectives and so their compiled step.
            slot = id(phase.objectives), phase.whole
            if slot not in updates:
                updates[slot] = make_update(phase, txs, mesh, feed.resident, len(seeds))
            asked = any_process(signals.caught)
            state, terms = updates[slot](state, *feed(phase, stream_step, stop - step, targets, chunk), key)
            log.add(terms, stop - step)
            step = stop
            if _due(step, schedule.log_every):
                _check(log.flush(step, phase.name), step)


def keys_of(seeds: Sequence[int]) -> jax.Array:
    """The random key of a seed, or the keys of several, stacked."""
    return jax.random.key(seeds[0]) if len(seeds) == 1 else jnp.stack([jax.random.key(s) for s in seeds])


@jax.jit
def member(tree: Any, i: int) -> Any:
    """The `i`-th of several seeds' trees, stacked as one; compiled once for all of them."""
    return jax.tree.map(lambda x: x[i], tree)


def members(key: jax.Array, variables: Any, seeds: int) -> Iterator[tuple[jax.Array, Any]]:
    """Key and variables of each seed, one after the other: a slice is a copy."""
    return iter([(key, variables)]) if seeds == 1 else (member((key, variables), i) for i in range(seeds))


def _targets(phase: Phase, first: int, key: jax.Array, variables: Any, infer: Callable, seeds: int) -> dict:
    """The phase's targets; with several seeds, these are the first dimension."""
    if phase.targets is None:
        return {}
    each = [phase.targets(jax.random.fold_in(k, first), v, infer) for k, v in members(key, variables, seeds)]
    found = each[0] if seeds == 1 else {name: np.stack([targets[name] for targets in each]) for name in each[0]}
    # Processes on unlike machines may round differently, and k-means end elsewhere.
    return broadcast_from_first(found)


def _resume(store: Store, state: TrainState) -> tuple[int, TrainState, dict[str, np.ndarray], float]:
    """Step, state, targets and seconds of the newest checkpoint, or of a new run."""
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    found = store.restore(abstract)
    if found is None:
        return 0, state, {}, 0.0
    step, state, targets, meta = found
    return step, state, targets, meta["seconds"]


def _due(step: int, period: int) -> bool:
    return period > 0 and step > 0 and step % period == 0


def _check(terms: Mapping[str, float], step: int) -> None:
    bad = [name for name in ("loss", "grad_norm") if not math.isfinite(terms.get(name, 0.0))]
    if bad:
        raise Diverged(
            f"{' and '.join(bad)} not finite at step {step}; the last checkpoint is from before; lower the rate"
        )
