"""The loss of DMIM, from the codes of all modalities; see `clustering_jax.methods.dmim.method`.

Modalities are known by their numbers. Each term counts only the rows that have the modalities it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp

from clustering_jax.losses import mutual_information, prior_kl, pseudo_label_loss
from clustering_jax.method import Batch, Variables
from clustering_jax.methods.dmim.network import Codes, Network
from clustering_jax.methods.monitor import occupancy
from clustering_jax.methods.prior import UNIFORM, Prior
from clustering_jax.methods.views import (
    both_present,
    fill_missing,
    mixture,
    stack_masks,
    view_masks,
    view_names,
    view_number,
)
from clustering_jax.nn.noise import example_normal
from clustering_jax.nn.norm import DECAY
from clustering_jax.settings.dmim import DMIM
from clustering_jax.typing import Array, Float


def modalities(batch: Batch) -> tuple[dict[int, Array], dict[int, Array | None]]:
    """The rows of each modality in a batch by its number, zeros where it is missing; and its mask."""
    numbers, masks = [view_number(name) for name in view_names(batch)], view_masks(batch)
    rows = {v: fill_missing(batch[f"view{v}"], mask) for v, mask in zip(numbers, masks, strict=True)}
    return rows, dict(zip(numbers, masks, strict=True))


def draw_noise(key: Array, index: Array, views: int, width: int) -> Float[Array, "n views+1 d"]:
    """Standard normal noise as a function of (key, example): the sample of the prior, then one for each modality."""
    return example_normal(key, index, (views + 1, width))


def information_losses(codes: Mapping[int, Codes], masks: Mapping) -> dict[str, Array]:
    """L1: the negative mutual information of the assignments, summed over the pairs of modalities."""
    terms = {"cluster": jnp.zeros(()), "over": jnp.zeros(())}
    for v, w in combinations(codes, 2):
        mask = both_present(masks[v], masks[w])
        terms["cluster"] -= mutual_information(codes[v].c, codes[w].c, where=mask)
        terms["over"] -= mutual_information(codes[v].o, codes[w].o, where=mask)
    return terms


def superfluous_information(codes: Mapping[int, Codes], masks: Mapping, prior: Array) -> Array:
    """L2: divergence of softmax(z) from the softmax of a sample of the prior, summed over the modalities.

    Args:
      codes: codes of each modality.
      masks: the mask of each modality.
      prior: sample of N(0, I), [n, d].
    """
    total = jnp.zeros(())
    for v, code in codes.items():
        # Missing rows are replaced by the prior, whose divergence is 0.
        total += prior_kl(fill_missing(code.z, masks[v], prior), prior) * _rescaling(masks[v])
    return total


def modality_mask(codes: Mapping[int, Codes], masks: Mapping[int, Array | None]) -> Array:
    """Which rows have which modality in `codes`, bool [n, modalities]."""
    return stack_masks(next(iter(codes.values())).c.shape[0], (masks[v] for v in codes))


def balanced_assignments(codes: Mapping[int, Codes], masks: Mapping, balanced: str) -> tuple[Array, Array]:
    """The assignments from which L3 draws its labels, [n, k], and the mask of the rows that have them, bool [n].

    Args:
      codes: codes of each modality.
      masks: the mask of each modality.
      balanced: "first" or "mean", see `DMIM`.
    """
    mask = modality_mask(codes, masks)
    if balanced == "first":
        return codes[0].c, mask[:, 0]
    return mixture(jnp.stack([code.c for code in codes.values()], 1), mask), mask.any(1)


def objective(
    network: Network,
    settings: DMIM,
    variables: Variables,
    batch: Batch,
    noise: Array,
    prior: Prior = UNIFORM,
) -> tuple[Array, tuple[dict, dict]]:
    """The weighted loss L1 + L2 + L3 of a batch, as an `Objective` returns it.

    Args:
      network: the network.
      settings: weights and options.
      variables: variables of the network, and the joint tables "alignment".
      batch: the modalities; unless `balance_weight` is 0, also "pseudo", int [n, 1].
      noise: see `draw_noise`, [n, views + 1, d].
      prior: the expected shares of the clusters; learnt shares change here.

    Returns:
      The loss; the changed collections and the terms of the log.
    """
    rows, masks = modalities(batch)
    eps = {v: noise[:, 1 + v] for v in rows}
    codes, changed = network.apply(state(variables), rows, True, masks=masks, eps=eps, mutable=["batch_stats"])
    terms = information_losses(codes, masks)
    terms["superfluous"] = superfluous_information(codes, masks, noise[:, 0])
    value = settings.cluster_weight * terms["cluster"] + settings.over_weight * terms["over"]
    value += settings.superfluous_weight * terms["superfluous"]
    p, mask = balanced_assignments(codes, masks, settings.balanced)
    if settings.balance_weight:
        labels = jnp.where(mask, batch["pseudo"][:, 0], -1)
        terms["balance"] = pseudo_label_loss(p, labels, double_softmax=settings.double_softmax)
        value += settings.balance_weight * terms["balance"]
    collections = {
        "batch_stats": _passed_again(changed["batch_stats"], variables["batch_stats"], len(rows)),
        "alignment": _updated_joints(variables["alignment"], codes, masks),
    }
    mean = jnp.mean(p, 0, where=mask[:, None])
    collections |= prior.updated(variables, mean)
    monitored = occupancy(fill_missing(p, mask, mean))
    return value, (collections, {**terms, **monitored})


def _passed_again(new: Any, old: Any, passes: int) -> Any:
    """Running averages that `passes` updates have changed, after the same updates once more.

    The authors' code has one pass for L1 and one for L2. Its third pass, of the first modality when labels are drawn,
    is left out.
    """
    return jax.tree.map(lambda x, y: x + DECAY**passes * (x - y), new, old)


def _updated_joints(joints: Mapping[str, Array], codes: Mapping[int, Codes], masks: Mapping) -> dict[str, Array]:
    """Running averages of the joint table of each modality with the first one, [k, k]."""
    updated = {}
    for name, joint in joints.items():
        v = view_number(name)
        first = fill_missing(codes[0].c, both_present(masks[0], masks[v]))
        new = jnp.matmul(first.T, codes[v].c, precision="highest")
        updated[name] = DECAY * joint + (1 - DECAY) * new / len(codes[v].c)
    return updated


def _rescaling(mask: Array | None) -> Array | float:
    """Factor from a mean over all rows, with zeros outside of the mask, to the mean over the rows in the mask."""
    return 1.0 if mask is None else len(mask) / jnp.maximum(mask.sum(), 1)


def state(variables: Variables) -> dict[str, Any]:
    """The variables of the network, without the joint tables."""
    return {"params": variables["params"], "batch_stats": variables["batch_stats"]}
