"""Learning-rate schedules and optimisers from plain numbers."""

from __future__ import annotations

from typing import Any

import jax
import optax

from clustering_jax.errors import UserError, nearest
from clustering_jax.settings.base import Optimizer
from clustering_jax.settings.validate import settings_of


def _constant(peak: float, warmup: int, total: int) -> optax.Schedule:
    if not warmup:
        return optax.constant_schedule(peak)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), optax.constant_schedule(peak)], [warmup])


def _cosine(peak: float, warmup: int, total: int) -> optax.Schedule:
    return optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, max(total, warmup + 1))


SCHEDULES = {"constant": _constant, "cosine": _cosine}


def make_optimizer(*, total_steps: int, **settings: Any) -> optax.GradientTransformation:
    """Adam, AdamW or SGD, as the papers use them.

    Args:
      total_steps: length of the cosine schedule, in steps.
      settings: fields of `Optimizer`, which documents them and holds their defaults.

    Returns:
      The gradient transformation.

    Raises:
      UserError: an unknown setting or schedule, with the nearest one, or a value out of range.
    """
    s = settings_of(Optimizer, settings, "optimizer", group="optimizer")
    if s.schedule not in SCHEDULES:
        raise UserError(f"unknown schedule '{s.schedule}'{nearest(s.schedule, SCHEDULES)}")
    parts = [optax.clip_by_global_norm(s.clip_norm)] if s.clip_norm else []
    decayed = _kernels if s.decay_kernels_only else None
    parts += [optax.add_decayed_weights(s.weight_decay, decayed)] if s.weight_decay else []
    rate = SCHEDULES[s.schedule](s.learning_rate, s.warmup_steps, total_steps)
    if s.kind == "sgd":
        parts += [optax.trace(s.momentum, s.nesterov)]
        parts += [optax.add_decayed_weights(s.decoupled_decay, _kernels)] if s.decoupled_decay else []
        return optax.chain(*parts, optax.scale_by_learning_rate(rate))
    moments = {"b1": s.b1, "b2": s.b2, "eps": s.eps}
    if s.decoupled_decay:
        return optax.chain(*parts, optax.adamw(rate, **moments, weight_decay=s.decoupled_decay, mask=_kernels))
    return optax.chain(*parts, optax.adam(rate, **moments))


def _kernels(params: Any) -> Any:
    """True for each kernel. The name decides, not the rank: heads that train side by side add a dimension to biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: str(path[-1].key).endswith("kernel"), params)
