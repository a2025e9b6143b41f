"""The training loop, which all methods share.

Batches and random keys are pure functions of (seed, step). So a run resumes from its step, its state and the targets of
its phase, and ends bitwise where an uninterrupted run ends on the same devices. Several seeds train side by side in one
program; the seed is then the first dimension of every array of the state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from clustering_jax.data.base import Dataset
from clustering_jax.errors import UserError
from clustering_jax.method import Method, Phase
from clustering_jax.parallel import any_process, broadcast_from_first, data_mesh, local, replicate
from clustering_jax.training.batches import Feed
from clustering_jax.training.checkpoint import Store
from clustering_jax.training.log import MetricsLog
from clustering_jax.training.seeds import each_seed, keys_of
from clustering_jax.training.signals import Diverged, Interrupted, Signals
from clustering_jax.training.update import TrainState, init_state, make_update, optimizers

# The most steps of one compiled loop. All of them together pay the dispatch once.
LOOP_STEPS = 16


class Schedule(NamedTuple):
    """How often the loop logs, evaluates and saves, in steps; 0 is never.

    Attributes:
      log_every: steps between lines of metrics.jsonl.
      evaluate_every: steps between evaluations.
      checkpoint_every: steps between checkpoints.
      resident_bytes: data sets up to this size, in bytes, are kept on the device; larger ones stay on the host.
    """

    log_every: int = 64
    evaluate_every: int = 0
    checkpoint_every: int = 0
    resident_bytes: int = 4 << 30


class SchedulePosition(NamedTuple):
    """The position of a step in the phases of a run.

    Attributes:
      phase: the phase of the step.
      first: the first step of the phase.
      end: the step after the last step of the phase.
      stream_step: number of earlier steps on the same data stream, over all phases.
    """

    phase: Phase
    first: int
    end: int
    stream_step: int


def locate(phases: tuple[Phase, ...], step: int) -> SchedulePosition:
    """Returns the position of a step. The step after the last one belongs to the last phase."""
    first, steps_of_stream = 0, dict.fromkeys((p.stream for p in phases), 0)
    for number, phase in enumerate(phases, start=1):
        end = first + phase.num_steps
        if step < end or number == len(phases):
            break
        first, steps_of_stream[phase.stream] = end, steps_of_stream[phase.stream] + phase.num_steps
    return SchedulePosition(phase, first, end, steps_of_stream[phase.stream] + step - first)


def next_stop(step: int, end: int, chunk: int, schedule: Schedule) -> int:
    """Returns the step at which the next call of the update must end.

    It depends on `step` alone, so a resumed run makes the same calls as an uninterrupted one.

    Args:
      step: the current step.
      end: the step after the last step of the phase.
      chunk: a call ends at multiples of this, so it has at most so many steps.
      schedule: a call also ends where something is logged, evaluated or saved.
    """
    periods = [p for p in (chunk, schedule.log_every, schedule.evaluate_every, schedule.checkpoint_every) if p]
    return min([end] + [(step // p + 1) * p for p in periods])


def fit(
    method: Method,
    streams: Mapping[str, Dataset],
    variables: Any,
    *,
    seed_list: Sequence[int],
    batch_size: int,
    schedule: Schedule,
    store: Store,
    open_log: Callable[[int, int], MetricsLog],
    meta: Mapping[str, Any],
    infer: Callable,
    evaluate: Callable[[Any], dict[str, float]],
    signals: Signals | None = None,
) -> tuple[TrainState, float]:
    """Trains `method` from the newest checkpoint of `store`, or from `variables` if there is none.

    Args:
      method: what to train.
      streams: data sets by the names that the phases use.
      variables: initial Flax variables. With several seeds, the seed is the first dimension.
      seed_list: one seed for each run that trains side by side. It sets the batches, the augmentation and the noise.
      batch_size: global batch size, over all devices.
      schedule: when to log, evaluate and save. The end of the run is always saved.
      store: the checkpoints.
      open_log: ``(first step, total steps) -> log``.
      meta: JSON values that every checkpoint carries.
      infer: passed to `Phase.targets`.
      evaluate: ``(variables) -> {name: score}``.
      signals: signals that are already recorded. With None, `fit` records its own. If one of several processes gets a
        signal, all of them stop at the same step.

    Returns:
      The final state, and the seconds of training, which include those before a resume.

    Raises:
      Interrupted: after a signal. The current step is saved.
      Diverged: a loss or a gradient was not finite.
      UserError: the checkpoints are damaged or can't be written; or a phase draws partners, and the data do not fit on
        the device.
    """
    mesh, num_seeds = data_mesh(batch_size), len(seed_list)
    total_steps = sum(phase.num_steps for phase in method.phases)
    feed = Feed(streams, seed_list=seed_list, batch_size=batch_size, mesh=mesh, limit=schedule.resident_bytes)
    _check_partners(method, feed.resident)
    chunk = _steps_per_call(method, mesh, feed.resident)
    update_of = _cached_updates(optimizers(method), mesh, feed.resident, num_seeds)
    key = replicate(keys_of(seed_list), mesh)

    state = replicate(init_state(method, variables, num_seeds), mesh)
    start, state, targets, seconds_before = _resume(store, state)
    placed = feed.place(targets)
    step, start_time = start, time.monotonic() - seconds_before
    any_caught: Any = False
    with nullcontext(signals) if signals else Signals() as signals, open_log(start, total_steps) as log:
        while True:
            position = locate(method.phases, step)
            phase, first, end, stream_step = position
            # With several processes, use the result of the previous iteration, which is ready without blocking.
            stopping = signals.caught if jax.process_count() == 1 else bool(any_caught)

            # Evaluate before saving: a resumed run then has both already.
            if step > start and _due(step, schedule.evaluate_every):
                _check_finite(log.flush(step, phase.name), step)
                log.report(step, evaluate(state.variables))
            if _due(step, schedule.checkpoint_every) or stopping or step == total_steps:
                _check_finite(log.flush(step, phase.name), step)
                store.save(step, state, targets, {**meta, "seconds": time.monotonic() - start_time})
                log.restart(step)
            if step == total_steps:
                return state, time.monotonic() - start_time
            if stopping:
                raise Interrupted(
                    f"stopped by a signal; step {step} of {total_steps} is saved, the same command resumes"
                )

            # A new phase first computes its targets with the current variables. Some phases refresh them later.
            every = phase.refresh.every if phase.refresh else 0
            if step == first or _due(step - first, every):
                local_key, local_variables = local((key, state.variables))
                found = _targets(position, step, targets, local_key, local_variables, infer, num_seeds)
                if found is None:
                    _check_finite(log.flush(step, phase.name), step)
                    step = end
                    log.restart(step)
                    continue
                targets, placed = found, feed.place(found)

            # Train up to the next step at which something else is due.
            refresh = first + ((step - first) // every + 1) * every if every else end
            stop = next_stop(step, min(end, refresh), chunk, schedule)
            any_caught = any_process(signals.caught)
            log.begin(phase.name)
            state, terms = update_of(phase)(state, *feed(phase, stream_step, stop - step, placed, chunk), key)
            log.add(terms, stop - step)
            step = stop
            if _due(step, schedule.log_every):
                _check_finite(log.flush(step, phase.name), step)


def _check_partners(method: Method, resident: bool) -> None:
    if any(phase.partners for phase in method.phases) and not resident:
        raise UserError(
            "a phase draws neighbours of its rows, which needs all data on the device: raise run.resident_gib"
        )


def _steps_per_call(method: Method, mesh: Mesh, resident: bool) -> int:
    """Returns the most steps of one call: 1 if the data stay on the host, or if XLA would slow down a compiled loop."""
    slow_loop = method.avoid_scan_on_cpu and mesh.devices.flat[0].platform == "cpu"
    return LOOP_STEPS if resident and not slow_loop else 1


def _cached_updates(txs: list, mesh: Mesh, resident: bool, num_seeds: int) -> Callable[[Phase], Callable]:
    """Returns ``phase -> update``. Phases that share their objectives also share one compiled update."""
    updates: dict[tuple[int, bool], Callable] = {}

    def update_of(phase: Phase) -> Callable:
        shared = id(phase.objectives), phase.whole
        if shared not in updates:
            updates[shared] = make_update(phase, txs, mesh, resident, num_seeds)
        return updates[shared]

    return update_of


def _targets(
    position: SchedulePosition,
    step: int,
    present: Mapping[str, Any],
    key: jax.Array,
    variables: Any,
    infer: Callable,
    num_seeds: int,
) -> dict | None:
    """Returns the targets from `step` on, or None if the phase ends. With several seeds, the seed comes first."""
    phase, starts, of_seeds = position.phase, step == position.first, []
    compute = phase.targets if starts else phase.refresh and phase.refresh.update
    if compute is None:
        return {}
    for number, (seed_key, seed_variables) in enumerate(each_seed(key, variables, num_seeds)):
        arguments = [jax.random.fold_in(seed_key, step), seed_variables, infer]
        if not starts:
            arguments.append(present if num_seeds == 1 else {name: x[number] for name, x in present.items()})
        of_seeds.append(compute(*arguments))
    if any(targets is None for targets in of_seeds):
        return None
    if num_seeds == 1:
        targets = of_seeds[0]
    else:
        targets = {name: np.stack([targets[name] for targets in of_seeds]) for name in of_seeds[0]}
    # Use the targets of process 0: unlike machines may round differently, and then k-means differs.
    return broadcast_from_first(targets)


def _resume(store: Store, state: TrainState) -> tuple[int, TrainState, dict[str, np.ndarray], float]:
    """Returns step, state, targets and seconds of the newest checkpoint, or those of a new run."""
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    checkpoint = store.restore(abstract)
    if checkpoint is None:
        return 0, state, {}, 0.0
    step, state, targets, meta = checkpoint
    return step, state, targets, meta["seconds"]


def _due(step: int, period: int) -> bool:
    return period > 0 and step > 0 and step % period == 0


def _check_finite(terms: Mapping[str, float], step: int) -> None:
    bad = [name for name in ("loss", "grad_norm") if not math.isfinite(terms.get(name, 0.0))]
    if bad:
        raise Diverged(
            f"{' and '.join(bad)} not finite at step {step}; the last checkpoint is from before; lower the rate, "
            "or scale data of large numbers (data.scaling)"
        )
