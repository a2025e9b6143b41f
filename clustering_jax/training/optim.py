"""Learning-rate schedules and optimisers from plain numbers."""

from __future__ import annotations

from typing import Any

import jax
import optax

from clustering_jax.errors import UserError, nearest


def _constant(peak: float, warmup: int, total: int) -> optax.Schedule:
    if not warmup:
        return optax.constant_schedule(peak)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), optax.constant_schedule(peak)], [warmup])


def _cosine(peak: float, warmup: int, total: int) -> optax.Schedule:
    return optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, max(total, warmup + 1))


SCHEDULES = {"constant": _constant, "cosine": _cosine}


def make_optimizer(
    *,
    total_steps: int,
    learning_rate: float = 3e-4,
    schedule: str = "constant",
    warmup_steps: int = 0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    decoupled_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Adam, or AdamW, as the papers use it.

    Args:
      total_steps: length of the cosine schedule, in steps.
      learning_rate: peak rate.
      schedule: "constant" or "cosine" (to zero), each after `warmup_steps` of linear warm-up.
      weight_decay: L2 added to the gradient, as torch's Adam has it (not AdamW's decoupled decay).
      clip_norm: largest global gradient norm; 0 clips nothing.
      decoupled_decay: AdamW's weight decay, of matrices only: parameters whose name ends in "kernel". It is multiplied
        by the learning rate.

    Raises:
      UserError: an unknown schedule.
    """
    if schedule not in SCHEDULES:
        raise UserError(f"unknown schedule '{schedule}'{nearest(schedule, SCHEDULES)}")
    parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    parts += [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    rate = SCHEDULES[schedule](learning_rate, warmup_steps, total_steps)
    if decoupled_decay:
        parts.append(optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=decoupled_decay, mask=_matrices))
    else:
        parts.append(optax.adam(rate, b1=b1, b2=b2, eps=eps))
    return optax.chain(*parts)


def _matrices(params: Any) -> Any:
    """True for each kernel. Its name tells, not its rank: heads that train side by side add a dimension to biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: str(path[-1].key).endswith("kernel"), params)
