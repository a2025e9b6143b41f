"""Phases after CC. Each trains the whole network from where CC left it, with CC's own heads.

- "scan" and "selflabel": SCAN's neighbours and its self-labelling (Van Gansbeke et al., ECCV 2020; arXiv 2005.12320).
- "boost": the last stage of TCL (Li et al., IJCV 2022; arXiv 2210.11680), by the authors of CC.

Before each epoch the host looks at the clusters of the plain images: a cluster that has died is reported, and "boost"
takes its labels from them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from clustering_jax.augment.pipeline import augment
from clustering_jax.augment.policies import Policy
from clustering_jax.augment.resample import resize
from clustering_jax.augment.strong import strong_augment
from clustering_jax.errors import UserError, nearest
from clustering_jax.kmeans.neighbours import nearest_neighbours
from clustering_jax.losses import consistency, imbalance, labelled_nt_xent, normalize, self_label_loss
from clustering_jax.method import Objective, Phase, Refresh
from clustering_jax.methods.cc.boost import boost_labels, died, most_confident
from clustering_jax.methods.monitor import occupancy
from clustering_jax.methods.prior import UNIFORM, Prior
from clustering_jax.settings.cc import CC
from clustering_jax.training.optim import make_optimizer

PHASES = ("scan", "selflabel", "boost")


class Model(NamedTuple):
    """The network as the phases use it.

    Args:
      forward: ``(variables, images [b, s, s, c]) -> ((g [b, d], c [b, k]), changed collections)``, in training mode.
        Images [b, views, s, s, c] give each view statistics of its own.
      embed: ``(variables, batch) -> [n, d]`` features in which neighbours are near.
      predict: ``(variables, batch) -> [n, k]`` soft assignments of the plain images.
      policy: CC's augmentation; its size is the side of the images.
      prior: the expected shares of the clusters.
    """

    forward: Callable
    embed: Callable
    predict: Callable
    policy: Policy
    prior: Prior = UNIFORM


def phase_names(settings: CC) -> list[str]:
    """The phases after CC, in their order."""
    return [] if settings.refine == "none" else [name.strip() for name in settings.refine.split(",")]


def check_refine(settings: CC) -> None:
    """Checks the names of the phases, and the numbers that have an upper end.

    Raises:
      UserError: an unknown phase, with the nearest one, or a number out of range.
    """
    unknown = next((name for name in phase_names(settings) if name not in PHASES), None)
    if unknown is not None:
        raise UserError(
            f"model.refine has the phase '{unknown}'{nearest(unknown, PHASES)}: choose none, or {', '.join(PHASES)}"
        )
    if settings.boost_share > 1:
        raise UserError(f"model.boost_share is {settings.boost_share}: choose a number above 0 and up to 1")
    if settings.refine_share > 1:
        raise UserError(f"model.refine_share is {settings.refine_share}: choose a number from 0 to 1")
    for name in ("selflabel_threshold", "boost_threshold"):
        if not 0 <= getattr(settings, name) < 1:
            raise UserError(f"model.{name} is {getattr(settings, name)}: choose a number from 0 to below 1")


def refine_phases(settings: CC, model: Model, steps: int) -> tuple[Phase, ...]:
    """The phases in the order of `phase_names`.

    Args:
      settings: the settings of CC.
      model: the network.
      steps: steps of an epoch.
    """
    tx = make_optimizer(
        total_steps=1, learning_rate=settings.refine_learning_rate, weight_decay=settings.refine_weight_decay
    )
    losses = {"scan": _scan, "selflabel": _selflabel, "boost": _boost}
    epochs = {name: getattr(settings, f"{name}_epochs") for name in PHASES}
    return tuple(
        Phase(
            name,
            epochs[name] * steps,
            (Objective(_with_statistics(losses[name](settings, model), settings, model), tx),),
            partners="neighbours" if name == "scan" else "",
            **_targets(name, settings, model, steps),
        )
        for name in phase_names(settings)
    )


def _with_statistics(loss: Callable, settings: CC, model: Model) -> Callable:
    """The loss, which then moves the running statistics by those of the plain images if the settings say so."""
    if not settings.refine_plain_statistics:
        return loss

    def with_statistics(variables: Any, batch: Any, key: jax.Array) -> tuple:
        value, (changed, terms) = loss(variables, batch, key)
        _, plain = jax.lax.stop_gradient(model.forward(variables, resize(batch["image"], model.policy.size)))
        return value, ({**changed, **plain}, terms)

    return with_statistics


def _scan(settings: CC, model: Model) -> Callable:
    def loss(variables: Any, batch: Any, key: jax.Array) -> tuple:
        size, index = model.policy.size, batch["index"]
        (_, anchor), changed = model.forward(variables, strong_augment(key, batch["image"], index, 0, size))
        (_, near), changed = model.forward(
            {**variables, **changed}, strong_augment(key, batch["image_partner"], index, 1, size)
        )
        # The entropy of the anchors alone, as in the authors' code; log k less it is the imbalance.
        balance = imbalance(anchor, log_prior=model.prior.log(variables))
        changed |= model.prior.updated(variables, anchor.mean(0))
        terms = {"consistency": consistency(anchor, near), "imbalance": balance}
        value = terms["consistency"] + settings.scan_entropy_weight * terms["imbalance"]
        return value, (changed, {**terms, **occupancy(anchor)})

    return loss


def _selflabel(settings: CC, model: Model) -> Callable:
    def loss(variables: Any, batch: Any, key: jax.Array) -> tuple:
        size, index = model.policy.size, batch["index"]
        # As in the authors' code, the plain image passes with the statistics of its batch, too.
        (_, plain), changed = jax.lax.stop_gradient(model.forward(variables, resize(batch["image"], size)))
        (_, strong), changed = model.forward(
            {**variables, **changed}, strong_augment(key, batch["image"], index, 1, size)
        )
        confident = (plain.max(1) > settings.selflabel_threshold) | batch["kept"]
        # A row of zeros is not confident.
        labels = jax.nn.one_hot(plain.argmax(1), plain.shape[1]) * confident[:, None]
        value = self_label_loss(strong, labels, threshold=0.5)
        terms = {"self_label": value, "confident": jnp.mean(confident, dtype=jnp.float32), **occupancy(plain)}
        return value, (changed, terms)

    return loss


def _boost(settings: CC, model: Model) -> Callable:
    def loss(variables: Any, batch: Any, key: jax.Array) -> tuple:
        images, index, labels = batch["image"], batch["index"], batch["pseudo"]
        weak = augment(key, images, index, 0, model.policy)
        strong = strong_augment(key, images, index, 1, model.policy.size)
        (g, c), changed = model.forward(variables, jnp.stack([weak, strong], axis=1))
        z = normalize(g[:, 0]), normalize(g[:, 1])
        instance = labelled_nt_xent(*z, labels, temperature=settings.instance_temperature)
        # Rows without a label are rows of zeros, which are not confident. Each cluster has the same total weight.
        value = self_label_loss(c[:, 1], jax.nn.one_hot(labels, c.shape[2]), threshold=0.5)
        labelled = jnp.mean(labels >= 0, dtype=jnp.float32)
        terms = {"instance": instance, "self_label": value, "labelled": labelled, **occupancy(c[:, 0])}
        return instance + value, (changed, terms)

    return loss


def _targets(name: str, settings: CC, model: Model, steps: int) -> dict[str, Any]:
    """The fields `targets` and `refresh` of a phase. The target "cluster" is each row's cluster before the epoch."""
    own = {"scan": _neighbours, "selflabel": _kept, "boost": _pseudo}[name]

    def start(key: jax.Array, variables: Any, infer: Callable) -> dict[str, np.ndarray]:
        return compute(variables, infer, np.asarray(infer(model.predict, variables)), {})

    def compute(variables: Any, infer: Callable, p: np.ndarray, present: Mapping) -> dict[str, np.ndarray]:
        mine = own(settings, lambda: infer(model.embed, variables), p, present)
        return {"cluster": p.argmax(1).astype(np.int32), **mine}

    def update(key: jax.Array, variables: Any, infer: Callable, present: Mapping) -> dict[str, np.ndarray] | None:
        p = np.asarray(infer(model.predict, variables))
        if lost := died(present["cluster"], p.argmax(1)):
            ends = "the phase ends" if settings.refine_stop else "model.refine_stop=True would end the phase"
            warnings.warn(f"cluster {lost[0]} has lost all its images in the phase '{name}': {ends}", stacklevel=2)
        return None if lost and settings.refine_stop else compute(variables, infer, p, present)

    return {"targets": start, "refresh": Refresh(steps, update)}


def _neighbours(settings: CC, features: Callable, p: np.ndarray, present: Mapping) -> dict[str, np.ndarray]:
    """Neighbours by the features at the start of the phase."""
    if present:
        return {"neighbours": present["neighbours"]}
    rows = jnp.asarray(features())
    near = np.asarray(nearest_neighbours(rows, min(settings.scan_neighbours, len(rows) - 1)))
    # As in the authors' code, a row is among its own neighbours.
    return {"neighbours": np.concatenate([np.arange(len(near), dtype=np.int32)[:, None], near], axis=1)}


def _kept(settings: CC, features: Callable, p: np.ndarray, present: Mapping) -> dict[str, np.ndarray]:
    """The images that have a label in the phase "selflabel" even below the threshold."""
    return {"kept": most_confident(p, settings.refine_share)}


def _pseudo(settings: CC, features: Callable, p: np.ndarray, present: Mapping) -> dict[str, np.ndarray]:
    """Labels of the phase "boost"; none at first."""
    before = present["pseudo"] if present else np.full(len(p), -1, np.int32)
    of = {"share": settings.boost_share, "threshold": settings.boost_threshold, "least": settings.refine_share}
    return {"pseudo": boost_labels(p, before, **of)}
