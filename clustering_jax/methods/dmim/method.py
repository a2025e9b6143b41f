"""DMIM: Deep Mutual Information Maximin for cross-modal clustering (Mao, Yan, Guo and Ye; AAAI 2021).

One network serves all modalities, which must have the same width. The loss keeps what the modalities share (L1: the
mutual information of their assignments to clusters and over-clusters), drops what they do not share (L2), and fills the
clusters evenly (L3: cross-entropy with balanced pseudo-labels, which are drawn again every few epochs). What the paper
leaves open is a setting; its default is that of the first author's demonstration code.

A batch holds "view0", "view1", ... [n, d] and, where some are missing, "mask" bool [n, views].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clustering_jax.losses import balanced_labels, maximum_matching
from clustering_jax.method import Batch, Method, Objective, Phase, Spec, Variables
from clustering_jax.methods.dmim.network import Codes, Network, check_widths
from clustering_jax.methods.dmim.objective import (
    balanced_assignments,
    draw_noise,
    modalities,
    modality_mask,
    objective,
    state,
)
from clustering_jax.methods.prior import prior_of
from clustering_jax.methods.views import fill_missing, mixture, view_mask
from clustering_jax.settings.dmim import DMIM, OPTIMIZER
from clustering_jax.settings.validate import settings_of
from clustering_jax.training.optim import make_optimizer
from clustering_jax.typing import Array


def build(spec: Spec, *, optimizer: dict | None = None, **model: Any) -> Method:
    """DMIM for a run. The objective of the paper is L1 + L2 + L3.

    Args:
      spec: the run. With `full_batch` an epoch is one step, otherwise `spec.steps_per_epoch` steps.
      optimizer: fields of `Optimizer`; the learning rate is 5e-4 unless given.
      model: fields of `DMIM`, which documents them and holds their defaults.

    Returns:
      The method.

    Raises:
      UserError: an unknown setting or a value out of range.
    """
    s = settings_of(DMIM, model, "method 'dmim'", group="model")
    k, prior = spec.num_clusters, prior_of(s.prior, spec.num_clusters)
    network = Network(k, s.over_clusters * k, s.head_std)

    def init(key, batch):
        rows, masks = modalities(batch)
        check_widths(rows)
        variables = network.init(key, rows, True, masks=masks)
        return {**variables, "alignment": {f"view{v}": jnp.zeros((k, k)) for v in rows if v}, **prior.initial(k)}

    def loss(variables, batch, key):
        rows, _ = modalities(batch)
        noise = draw_noise(key, batch["index"], len(rows), rows[0].shape[1])
        return objective(network, s, variables, batch, noise, prior)

    @jax.jit
    def train_assignments(variables, batch):
        rows, masks = modalities(batch)
        codes, _ = network.apply(state(variables), rows, True, masks=masks, mutable=["batch_stats"])
        return balanced_assignments(codes, masks, s.balanced)

    labels = jax.jit(lambda p, log_prior: balanced_labels(p, power=s.power, log_prior=log_prior))
    total = jax.jit(lambda variables, batch, key: loss(variables, batch, key)[0])

    def with_labels(variables, batch):
        draw = partial(labels, log_prior=prior.log(variables))
        return {**batch, "pseudo": _draw_labels(draw, *train_assignments(variables, batch))[:, None]}

    # The rows stay on the device between two draws, and all seeds share them.
    held: list[Any] = []

    def all_rows(variables, infer):
        if not held or held[0] is not infer:
            held[:] = infer, jax.device_put(_all_rows(variables, infer))
        return held[1]

    # The assignments use the statistics of all rows, as the steps of a full batch do: the labels are then those of the
    # authors' code. The host keeps the labels until the next draw, so that a checkpoint holds them.
    def targets(key, variables, infer):
        return {"pseudo": with_labels(variables, all_rows(variables, infer))["pseudo"]}

    def criterion(key, variables, infer):
        batch = all_rows(variables, infer)
        batch = with_labels(variables, batch) if s.balance_weight else batch
        return float(total(variables, batch, key))

    def evaluated(variables, batch):
        rows, masks = modalities(batch)
        return network.apply(state(variables), rows, False, masks=masks), masks

    def embed(variables, batch):
        codes, masks = evaluated(variables, batch)
        return jnp.concatenate([fill_missing(code.h, masks[v]) for v, code in codes.items()], axis=1)

    def predict(variables, batch):
        return assignments(*evaluated(variables, batch), variables["alignment"], s.prediction)

    steps = 1 if s.full_batch else spec.steps_per_epoch["train"]
    tx = make_optimizer(total_steps=spec.epochs * steps, **{**OPTIMIZER._asdict(), **(optimizer or {})})
    phases = _phases(
        spec.epochs,
        s.refresh_epochs if s.balance_weight else spec.epochs,
        steps,
        objectives=(Objective(loss, tx),),
        targets=targets if s.balance_weight else None,
        whole=s.full_batch,
    )
    return Method(init, phases, embed, predict, criterion=criterion)


def assignments(codes: Mapping[int, Codes], masks: Mapping, joints: Mapping[str, Array], prediction: str) -> Array:
    """The predicted soft assignments.

    Args:
      codes: codes of each modality.
      masks: the mask of each modality, see `modalities`.
      joints: joint table of each modality with the first one, [k, k], as a running average over the training.
      prediction: see `DMIM`.

    Returns:
      [n, k]; 1/k for a row without a modality that predicts.
    """
    mask = modality_mask(codes, masks)
    if prediction == "first":
        mask &= jnp.array([v == 0 for v in codes])
    aligned = [
        # Swapping labels in pairs leaves the mutual information as it is, so clusters of another modality may have
        # other names.
        code.c if v == 0 or prediction == "first" else code.c[:, maximum_matching(joints[f"view{v}"])]
        for v, code in codes.items()
    ]
    return mixture(jnp.stack(aligned, 1), mask)


def _draw_labels(draw: Callable, p: Array, mask: Array) -> np.ndarray:
    """Labels of the rows in `mask`, and -1 for the other rows, int32 [n]. The assignments stay on the device."""
    rows = np.flatnonzero(mask)
    return np.asarray(jnp.full(len(p), -1, jnp.int32).at[rows].set(draw(p[rows])))


def _all_rows(variables: Variables, infer: Callable) -> dict[str, Any]:
    """The batch of all rows."""
    rows, mask = (infer(function, variables) for function in (_stacked, view_mask))
    views = {f"view{v}": rows[:, v] for v in range(rows.shape[1])}
    return {**views, "mask": mask, "index": np.arange(len(rows), dtype=np.int32)}


def _stacked(variables: Variables, batch: Batch) -> Array:
    return jnp.stack(list(modalities(batch)[0].values()), 1)


def _phases(epochs: int, refresh: int, steps: int, **common: Any) -> tuple[Phase, ...]:
    """One phase for each draw of the labels. They share their objectives, and therefore one compiled step."""
    starts = range(0, max(epochs, 1), max(refresh, 1))
    return tuple(Phase("clusters", min(refresh, epochs - start) * steps, **common) for start in starts)
