"""Phases after CC: SCAN's neighbours and its self-labelling (Van Gansbeke et al., ECCV 2020; arXiv 2005.12320).

Both train the whole network from where CC left it, with CC's own cluster head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clustering_jax.augment.resample import resize
from clustering_jax.augment.strong import strong_augment
from clustering_jax.errors import UserError, nearest
from clustering_jax.kmeans.neighbours import nearest_neighbours
from clustering_jax.losses import consistency, imbalance, self_label_loss
from clustering_jax.method import Objective, Phase
from clustering_jax.methods.monitor import occupancy
from clustering_jax.settings.cc import CC
from clustering_jax.training.optim import make_optimizer

PHASES = ("scan", "selflabel")


def phase_names(settings: CC) -> list[str]:
    """The phases after CC, in their order."""
    return [] if settings.refine == "none" else [name.strip() for name in settings.refine.split(",")]


def check_refine(settings: CC) -> None:
    """Checks the names of the phases.

    Raises:
      UserError: an unknown phase, with the nearest one.
    """
    unknown = next((name for name in phase_names(settings) if name not in PHASES), None)
    if unknown:
        raise UserError(
            f"model.refine has the phase '{unknown}'{nearest(unknown, PHASES)}: choose none, or {' and '.join(PHASES)}"
        )


def refine_phases(settings: CC, forward: Callable, embed: Callable, size: int, steps: int) -> tuple[Phase, ...]:
    """The phases in the order of `phase_names`.

    Args:
      settings: the settings of CC.
      forward: ``(variables, images [b, s, s, c]) -> (c [b, k], changed collections)``, in training mode.
      embed: ``(variables, batch) -> [n, d]`` features in which neighbours are near.
      size: side of the images in pixels.
      steps: steps of an epoch.
    """
    tx = make_optimizer(
        total_steps=1, learning_rate=settings.refine_learning_rate, weight_decay=settings.refine_weight_decay
    )

    def scan(variables: Any, batch: Any, key: jax.Array) -> tuple:
        anchor, changed = forward(variables, strong_augment(key, batch["image"], batch["index"], 0, size))
        near, changed = forward(
            {**variables, **changed}, strong_augment(key, batch["image_partner"], batch["index"], 1, size)
        )
        # The entropy of the anchors alone, as in the authors' code; log k less it is the imbalance.
        terms = {"consistency": consistency(anchor, near), "imbalance": imbalance(anchor)}
        value = terms["consistency"] + settings.scan_entropy_weight * terms["imbalance"]
        return value, (changed, {**terms, **occupancy(anchor)})

    def selflabel(variables: Any, batch: Any, key: jax.Array) -> tuple:
        # As in the authors' code, the plain image passes with the statistics of its batch, too.
        plain, changed = jax.lax.stop_gradient(forward(variables, resize(batch["image"], size)))
        strong, changed = forward(
            {**variables, **changed}, strong_augment(key, batch["image"], batch["index"], 1, size)
        )
        value = self_label_loss(strong, plain, threshold=settings.selflabel_threshold)
        confident = jnp.mean(plain.max(1) > settings.selflabel_threshold, dtype=jnp.float32)
        return value, (changed, {"self_label": value, "confident": confident, **occupancy(plain)})

    def neighbours(key: jax.Array, variables: Any, infer: Callable) -> dict[str, np.ndarray]:
        features = jnp.asarray(infer(embed, variables))
        near = np.asarray(nearest_neighbours(features, min(settings.scan_neighbours, len(features) - 1)))
        # As in the authors' code, a row is among its own neighbours.
        return {"neighbours": np.concatenate([np.arange(len(near), dtype=np.int32)[:, None], near], axis=1)}

    phases = {
        "scan": Phase("scan", settings.scan_epochs * steps, (Objective(scan, tx),), neighbours, partners="neighbours"),
        "selflabel": Phase("selflabel", settings.selflabel_epochs * steps, (Objective(selflabel, tx),)),
    }
    return tuple(phases[name] for name in phase_names(settings))
