"""The compiled training step, and the state that it changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from clustering_jax.method import Method, Phase
from clustering_jax.parallel import batch_sharding, replicated
from clustering_jax.training.batches import take_rows


@flax.struct.dataclass
class TrainState:
    """Everything that training changes.

    Attributes:
      step: number of steps taken, int32 [].
      variables: Flax variables.
      opt_states: one optimiser state for each of `optimizers`.
    """

    step: jax.Array
    variables: Any
    opt_states: tuple


def optimizers(method: Method) -> list[optax.GradientTransformation]:
    """Returns the distinct optimisers of a method, in order of first use."""
    txs: list[optax.GradientTransformation] = []
    for objective in (o for phase in method.phases for o in phase.objectives):
        if not any(objective.tx is tx for tx in txs):
            txs.append(objective.tx)
    return txs


def init_state(method: Method, variables: Any, num_seeds: int = 1) -> TrainState:
    """Returns the state before the first step.

    Args:
      method: what to train.
      variables: initial Flax variables. With several seeds, the seed is the first dimension, here and in the result.
      num_seeds: number of seeds that train side by side.
    """
    if num_seeds > 1:
        return jax.vmap(partial(init_state, method))(variables)
    opt_states = tuple(tx.init(variables["params"]) for tx in optimizers(method))
    return TrainState(step=jnp.zeros((), jnp.int32), variables=variables, opt_states=opt_states)


def train_step(phase: Phase, txs: list, state: TrainState, batch: Mapping, key: jax.Array) -> tuple[TrainState, dict]:
    """Takes one step: every objective of the phase in turn, all on the same batch.

    Args:
      phase: the phase that the step belongs to.
      txs: the optimisers of the method, as `optimizers` returns them.
      state: the state before the step.
      batch: features, targets and "index".
      key: random key of the epoch.

    Returns:
      The state after the step, and the terms of the losses by name, with "loss" and "grad_norm".
    """
    variables, opt_states, terms = dict(state.variables), list(state.opt_states), dict[str, Any]()
    for objective in phase.objectives:

        def loss(params, variables=variables, objective=objective):
            return objective.loss({**variables, "params": params}, batch, key)

        (value, (changed, loss_terms)), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        slot = next(i for i, tx in enumerate(txs) if tx is objective.tx)
        updates, opt_states[slot] = objective.tx.update(grads, opt_states[slot], variables["params"])
        variables = {**variables, **changed, "params": optax.apply_updates(variables["params"], updates)}
        terms = {
            **terms,
            **loss_terms,
            "loss": terms.get("loss", 0.0) + value,
            "grad_norm": optax.tree.norm(grads),
        }
    return TrainState(state.step + 1, variables, tuple(opt_states)), terms


def make_update(phase: Phase, txs: list, mesh: Mesh, resident: bool, num_seeds: int = 1) -> Callable:
    """Compiles several steps of a phase into one call.

    Args:
      phase: the phase whose objectives are trained.
      txs: the optimisers of the method, as `optimizers` returns them.
      mesh: the devices.
      resident: whether data and targets are whole arrays, from which each step gathers its rows.
      num_seeds: number of seeds that train side by side.

    Returns:
      ``update(state, data, targets, rows, epochs, count, key) -> (state, {term: [length]})``. The arguments from data
      to count are what `Feed` returns. `state` is donated. Only the first `count` entries of each term are valid. With
      several seeds, the seed is the first dimension of the state, the key and the targets, and a term is
      ``[length, num_seeds]``.
    """

    def one(data, targets, key, state, inputs):
        rows, epoch = inputs
        # Not as the sharding of an argument, because then the devices would have to divide the number of rows.
        rows = {k: jax.lax.with_sharding_constraint(v, batch_sharding(mesh, axis=v.ndim - 1)) for k, v in rows.items()}

        def step(state, targets, key, rows):
            batch, key = {**data, **targets}, jax.random.fold_in(key, epoch)
            batch = take_rows(batch, rows) if resident else batch
            if phase.partners:
                batch |= draw_partners(data, batch.pop(phase.partners), rows["index"], key)
            return train_step(phase, txs, state, {**batch, "index": rows["index"]}, key)

        if num_seeds > 1:
            rows_axis = 0 if rows["index"].ndim > 1 else None
            step = jax.vmap(step, in_axes=(0, 0, 0, rows_axis))
        return step(state, targets, key, rows)

    def update(state, data, targets, rows, epochs, count, key):
        step, length = partial(one, data, targets, key), len(epochs)

        def inputs(i):
            return {name: numbers[i] for name, numbers in rows.items()}, epochs[i]

        if length == 1:
            state, terms = step(state, inputs(0))
            return state, jax.tree.map(lambda x: x[None], terms)

        def body(i, carry):
            state, terms = step(carry[0], inputs(i))
            return state, jax.tree.map(lambda history, x: history.at[i].set(x), carry[1], terms)

        _, shapes = jax.eval_shape(step, state, inputs(0))
        # A fori_loop is one program for every count; a scan would be compiled for each length.
        return jax.lax.fori_loop(
            0, count, body, (state, jax.tree.map(lambda x: jnp.zeros((length, *x.shape), x.dtype), shapes))
        )

    whole = replicated(mesh)
    rows = whole if resident else batch_sharding(mesh)
    in_shardings = (whole, rows, rows, whole, whole, whole, whole)
    return jax.jit(update, donate_argnums=0, in_shardings=in_shardings, out_shardings=whole)


def draw_partners(data: Mapping[str, Any], partners: jax.Array, index: jax.Array, key: jax.Array) -> dict[str, Any]:
    """Draws a partner for each row of a batch and gathers its features. The draw depends on key and row number alone.

    Args:
      data: whole features [n, ...] by name.
      partners: int [b, m], the candidate rows.
      index: int [b], the rows of the batch.
      key: random key of the epoch.

    Returns:
      ``{"FEATURE_partner": [b, ...]}``.
    """
    draw = jax.vmap(lambda row: jax.random.randint(jax.random.fold_in(key, row), (), 0, partners.shape[1]))
    drawn = jnp.take_along_axis(partners, draw(index)[:, None], axis=1)[:, 0]
    return {f"{name}_partner": rows[drawn] for name, rows in data.items()}
