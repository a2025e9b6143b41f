"""Trains a run for a short phase on its corrected clusters, a few known labels, and pairs of rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from clustering_jax.data.base import Dataset
from clustering_jax.editing.known import Known
from clustering_jax.errors import UserError
from clustering_jax.inference.predictor import Predictor
from clustering_jax.inference.results import versions
from clustering_jax.method import Method, Objective, Phase
from clustering_jax.methods import from_config
from clustering_jax.training import seeds
from clustering_jax.training.checkpoint import Store
from clustering_jax.training.evaluate import make_infer
from clustering_jax.training.log import MetricsLog
from clustering_jax.training.loop import Schedule, fit
from clustering_jax.training.optim import make_optimizer

# Known rows and pairs of a step; of more, each step draws this many.
DRAWN = 256
TINY = 1e-7


class Training(NamedTuple):
    """How to train on corrections.

    Attributes:
      steps: number of steps.
      encoder: whether the network that computes the embedding is trained too, and not the heads alone.
      learning_rate: rate of the term of the corrections; 0 is the rate of the run.
    """

    steps: int = 200
    encoder: bool = False
    learning_rate: float = 0.0


def retrained(
    predictor: Predictor, dataset: Dataset, known: Known, training: Training, directory: Path, *, quiet: bool = False
) -> Predictor:
    """Trains the model of a run on corrections.

    The method's own loss goes on, with its contrast and balance. After each of its updates, one update follows on the
    cross-entropy of the corrected clusters and of the known rows, and on the pairs.

    Args:
      predictor: the model.
      dataset: the rows of the run.
      known: what is known of them.
      training: how to train.
      directory: directory for what is written while training.
      quiet: whether to print nothing.

    Returns:
      The trained model, whose output i is cluster ``known.clusters[i]``.

    Raises:
      UserError: the method has no phase that can go on without targets.
      Diverged: a loss was not finite.
      Interrupted: a signal arrived. Nothing is kept.
    """
    k, n = len(known.clusters), dataset.num_examples
    size = min(predictor.config["batch_size"], n)
    size -= size % jax.device_count() if size > jax.device_count() else 0
    config = {**predictor.config, "num_clusters": k, "batch_size": size, "unlabelled": {}, "num_seeds": 1}
    steps, seed = {"train": n // size}, config["seed"]
    method = from_config(config, steps)
    first = {name: values[:2] for name, values in dataset.features.items()}
    # With one more output, the arrays differ along the axes of the outputs.
    wider = jax.eval_shape(from_config({**config, "num_clusters": k + 1}, steps).init, jax.random.key(0), first)
    variables = seeds.init_variables(method, (seed,), first)
    variables = transplanted(predictor.variables, variables, wider, known.sources)
    prepared = dataset
    if method.prepare:
        prepared = method.prepare(seeds.keys_of((seed,)), dataset, directory / "prepared")
    rate = training.learning_rate or config["optimizer"].get("learning_rate", 1e-3)
    tx = make_optimizer(total_steps=training.steps, learning_rate=rate)
    phase = corrected(method, _last_phase(method, config["method"]), dataset, known, tx, training.steps)
    if not training.encoder:
        phase = _frozen(phase, encoder_mask(method, variables, first))
    every = config["run"]
    schedule = Schedule(every["log_every"], 0, 0, int(every["resident_gib"] * 2**30))
    features = {name: [list(v.shape[1:]), str(v.dtype)] for name, v in prepared.features.items()}
    meta = {"config": config, "versions": versions(), "steps_per_epoch": steps, "features": features}
    store = Store(directory / "state", keep=1)
    try:
        state, _ = fit(
            method._replace(phases=(phase,)),
            {"train": prepared},
            variables,
            seed_list=(seed,),
            batch_size=size,
            schedule=schedule,
            store=store,
            open_log=lambda step, total: MetricsLog(directory / "metrics.jsonl", step, total, size, quiet=quiet),
            meta=meta,
            infer=lambda function, values: make_infer(function, size)(values, prepared.features),
            evaluate=lambda values: {},
        )
    finally:
        store.close()
    trained = Predictor.of(state.variables, {**meta, "scalings": dataset.scalings}, [])
    trained.save(directory / "checkpoints", training.steps)
    return trained


def transplanted(old: Any, new: Any, wider: Any, sources: np.ndarray) -> Any:
    """Variables of a model with other outputs: those of the old model, with the outputs reordered or repeated.

    Args:
      old: variables of a model with k outputs.
      new: initial variables of a model with m outputs.
      wider: shapes of the variables of a model with m + 1 outputs.
      sources: the old output of each new one, int [m].

    Returns:
      As `new`. Along an axis of the outputs, the entries of the old outputs are taken.
    """

    def leaf(before: jax.Array, after: jax.Array, more: jax.ShapeDtypeStruct) -> jax.Array:
        for axis in range(jnp.ndim(after)):
            if after.shape[axis] != more.shape[axis]:
                before = jnp.take(before, sources, axis)
        return jnp.asarray(before).astype(after.dtype)

    return jax.tree.map(leaf, jax.tree.map(jnp.asarray, old), new, wider)


def _last_phase(method: Method, name: str) -> Phase:
    """The last phase that needs no targets: targets such as pseudo-labels would contradict the corrections."""
    for phase in reversed(method.phases):
        if phase.targets is None and phase.stream == "train":
            return phase
    raise UserError(
        f"{name} can't be trained on corrections: all of its phases compute targets of their own; "
        "correct it, or add rows to it, without training (for new rows: --steps=0)"
    )


def with_students(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables with the parameters in place of their moving averages, through which no gradient flows."""
    like: Any = jax.tree.structure(variables["params"])
    return {n: variables["params"] if jax.tree.structure(v) == like else v for n, v in variables.items()}


def corrected(
    method: Method, phase: Phase, dataset: Dataset, known: Known, tx: optax.GradientTransformation, steps: int
) -> Phase:
    """A phase of the method with one more objective: the corrections.

    Args:
      method: the method.
      phase: the phase of the method that goes on.
      dataset: the rows of the run.
      known: what is known of them.
      tx: optimiser of the new objective.
      steps: number of steps.
    """
    rows = {name: np.asarray(values[known.rows]) for name, values in dataset.features.items()}
    sides = [{name: np.asarray(v[known.pairs[:, side]]) for name, v in dataset.features.items()} for side in range(2)]

    def assign(variables: Any, batch: Mapping[str, Any]) -> jax.Array:
        return method.predict(with_students(variables), batch)

    def loss(variables: Any, batch: Mapping[str, Any], key: jax.Array) -> tuple[jax.Array, tuple[dict, dict]]:
        # The key changes with the epoch only, and the batches of an epoch begin with different rows.
        key = jax.random.fold_in(key, batch["index"][0])
        terms = {"pseudo": cross_entropy(assign(variables, batch), batch["corrected"])}
        if len(known.rows):
            index = _drawn(key, len(known.rows))
            taken = {name: jnp.asarray(values)[index] for name, values in rows.items()}
            terms["known"] = cross_entropy(assign(variables, taken), jnp.asarray(known.targets)[index])
        if len(known.pairs):
            index = _drawn(key, len(known.pairs))
            p, q = (assign(variables, {n: jnp.asarray(v)[index] for n, v in side.items()}) for side in sides)
            terms["pairs"] = pair_loss(p, q, jnp.asarray(known.links)[index])
        return sum(terms.values(), jnp.zeros(())), ({}, terms)

    pseudo = np.asarray(known.pseudo, np.int32)
    return phase._replace(
        name="correct",
        num_steps=steps,
        objectives=(*phase.objectives, Objective(loss, tx)),
        targets=lambda key, variables, infer: {"corrected": pseudo},
    )


def cross_entropy(p: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean negative log-probability of the targets; rows of a negative target do not count.

    Args:
      p: soft assignments [n, k].
      targets: int [n].
    """
    chance = jnp.take_along_axis(p, jnp.maximum(targets, 0)[:, None], 1)[:, 0]
    counts = targets >= 0
    return -jnp.sum(jnp.where(counts, jnp.log(chance + TINY), 0.0)) / jnp.maximum(jnp.sum(counts), 1)


def pair_loss(p: jax.Array, q: jax.Array, links: jax.Array) -> jax.Array:
    """Mean negative log-probability that linked rows share a cluster, and that the other pairs do not.

    Args:
      p: soft assignments [m, k] of the first rows.
      q: the same of the second rows.
      links: 1 for rows of the same cluster, 0 for rows of different ones, [m].
    """
    same = jnp.sum(p * q, axis=1)
    return -jnp.mean(jnp.where(links == 1, jnp.log(same + TINY), jnp.log(jnp.maximum(1 - same, 0) + TINY)))


def _drawn(key: jax.Array, n: int) -> jax.Array:
    return jnp.arange(n) if n <= DRAWN else jax.random.randint(key, (DRAWN,), 0, n)


def encoder_mask(method: Method, variables: Any, batch: Mapping[str, Any]) -> Any:
    """Which parameters the embedding depends on: True for those of the encoder, False for those of the heads.

    Args:
      method: the method.
      variables: its variables.
      batch: a few rows.

    Returns:
      A tree like ``variables["params"]``. All are False if the embedding has no parameters.
    """

    def total(params: Any) -> jax.Array:
        return jnp.sum(jnp.sin(method.embed(with_students({**variables, "params": params}), batch)))

    gradients = jax.jit(jax.grad(total))(variables["params"])
    return jax.tree.map(lambda g: bool((np.asarray(g) != 0).any()), gradients)


def _frozen(phase: Phase, mask: Any) -> Phase:
    """The phase with updates of the heads alone."""
    changed: dict[int, optax.GradientTransformation] = {}

    def frozen(tx: optax.GradientTransformation) -> optax.GradientTransformation:
        return changed.setdefault(id(tx), optax.chain(tx, optax.masked(optax.set_to_zero(), mask)))

    return phase._replace(objectives=tuple(o._replace(tx=frozen(o.tx)) for o in phase.objectives))
