"""DMIM's loss, of the codes of all modalities; see `clustering_jax.methods.dmim.method`.

Modalities go by their numbers. Where rows lack one, all terms are those of the rows that have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from clustering_jax.losses import (
    gaussian_kl,
    mutual_information,
    posterior_skl,
    prior_kl,
    pseudo_label_loss,
)
from clustering_jax.method import Batch, Variables
from clustering_jax.methods.dmim.network import Codes, Network
from clustering_jax.methods.monitor import occupancy
from clustering_jax.methods.views import both, kept, mixture, presence, there, view_names
from clustering_jax.nn.noise import example_normal
from clustering_jax.nn.norm import DECAY
from clustering_jax.typing import Array, Float

# Forms of L2 and the weight each has at `superfluous_weight` 1: those that sum over dimensions drown the rest at 1.
SUPERFLUOUS = {"prior": 1.0, "gaussian_kl": 1e-3, "posterior_skl": 1e-3, "none": 0.0}


class Settings(NamedTuple):
    """How the loss is put together, see `build`."""

    cluster_weight: float
    over_weight: float
    superfluous_weight: float
    balance_weight: float
    superfluous: str
    balanced: str
    symmetrize: bool
    double_softmax: bool


def modalities(batch: Batch) -> tuple[dict[int, Array], dict[int, Array | None]]:
    """Rows of each modality in the batch by its number, zeros where missing; and which are there, as `presence`."""
    numbers, present = [int(name.removeprefix("view")) for name in view_names(batch)], presence(batch)
    rows = {v: kept(batch[f"view{v}"], where) for v, where in zip(numbers, present, strict=True)}
    return rows, dict(zip(numbers, present, strict=True))


def draw_noise(key: Array, index: Array, views: int, width: int) -> Float[Array, "n views+1 d"]:
    """Normal noise of each example, a function of (key, example): the sample of the prior, then each modality's."""
    return example_normal(key, index, (views + 1, width))


def shared_information(codes: Mapping[int, Codes], present: Mapping, symmetrize: bool) -> dict[str, Array]:
    """L1: the negative mutual information of the assignments, summed over pairs of modalities."""
    terms = {"cluster": jnp.zeros(()), "over": jnp.zeros(())}
    for v, w in combinations(codes, 2):
        options = {"symmetrize": symmetrize, "where": both(present[v], present[w])}
        terms["cluster"] -= mutual_information(codes[v].c, codes[w].c, **options)
        terms["over"] -= mutual_information(codes[v].o, codes[w].o, **options)
    return terms


def superfluous_information(codes: Mapping[int, Codes], present: Mapping, prior: Array, form: str) -> Array:
    """L2, summed over modalities, or over pairs of them ("posterior_skl"); `form` one of `SUPERFLUOUS`."""
    total = jnp.zeros(())
    if form == "posterior_skl":
        for v, w in combinations(codes, 2):
            a, b, where = codes[v], codes[w], both(present[v], present[w])
            mu, sigma = kept(b.mu, where, a.mu), kept(b.sigma, where, a.sigma)
            total += posterior_skl(a.mu, a.sigma, mu, sigma) * _rescaling(where)
    for v, code in codes.items():
        if form == "prior":
            # Rows that are not there take the value of least divergence, 0; so do those below.
            total += prior_kl(kept(code.z, present[v], prior), prior) * _rescaling(present[v])
        elif form == "gaussian_kl":
            mu, sigma = kept(code.mu, present[v]), kept(code.sigma, present[v], jnp.ones_like(code.sigma))
            total += gaussian_kl(mu, sigma) * _rescaling(present[v])
    return total


def having(codes: Mapping[int, Codes], present: Mapping[int, Array | None]) -> Array:
    """Which rows have which of the modalities in `codes`, bool [n, modalities]."""
    return there(next(iter(codes.values())).c.shape[0], (present[v] for v in codes))


def to_balance(codes: Mapping[int, Codes], present: Mapping, balanced: str) -> list[tuple[Array, Array]]:
    """The assignments [n, k] that L3 draws labels from, and which rows have them, bool [n]."""
    has = having(codes, present)
    if balanced == "first":
        return [(codes[0].c, has[:, 0])]
    if balanced == "mean":
        return [(mixture(jnp.stack([code.c for code in codes.values()], 1), has), has.any(1))]
    return [(code.c, where) for code, where in zip(codes.values(), has.T, strict=True)]


def balance_loss(found: list[tuple[Array, Array]], pseudo: Array, double_softmax: bool) -> Array:
    """L3: cross-entropy of the assignments of `to_balance` with the labels drawn from them, int [n, as many].

    Several modalities learn each other's labels, not their own ("swapped"): the mean over ordered pairs.
    """
    one = len(found) == 1
    pairs = [(v, w) for v in range(len(found)) for w in range(len(found)) if one or v != w]
    losses = []
    for v, w in pairs:
        (p, own), (_, other) = found[v], found[w]
        losses.append(pseudo_label_loss(p, jnp.where(own & other, pseudo[:, w], -1), double_softmax=double_softmax))
    return sum(losses, start=jnp.zeros(())) / len(pairs)


def objective(
    network: Network, settings: Settings, variables: Variables, batch: Batch, noise: Array
) -> tuple[Array, tuple[dict, dict]]:
    """The loss of a batch, as an `Objective` returns it: L1 + L2 + L3 with their weights.

    noise: [n, views + 1, d] as `draw_noise` has it. batch: with "pseudo", int [n, 1] or ("swapped") [n, views], unless
    `balance_weight` is 0.
    """
    rows, present = modalities(batch)
    eps = {v: noise[:, 1 + v] for v in rows}
    codes, changed = network.apply(state(variables), rows, True, present=present, eps=eps, mutable=["batch_stats"])
    terms = shared_information(codes, present, settings.symmetrize)
    terms["superfluous"] = superfluous_information(codes, present, noise[:, 0], settings.superfluous)
    found = to_balance(codes, present, settings.balanced)
    value = settings.cluster_weight * terms["cluster"] + settings.over_weight * terms["over"]
    value += settings.superfluous_weight * SUPERFLUOUS[settings.superfluous] * terms["superfluous"]
    if settings.balance_weight:
        terms["balance"] = balance_loss(found, batch["pseudo"], settings.double_softmax)
        value += settings.balance_weight * terms["balance"]
    passes = len(rows) if network.common_statistics else 1
    collections = {
        "batch_stats": _passed_again(changed["batch_stats"], variables["batch_stats"], passes),
        "alignment": _moved_joints(variables["alignment"], codes, present),
    }
    p, counts = found[0]
    p = kept(p, counts, jnp.mean(p, 0, where=counts[:, None]))
    return value, (collections, {**terms, **occupancy(p)})


def _passed_again(new: Any, old: Any, passes: int) -> Any:
    """The running averages, after `passes` updates by a batch, once it has passed as often again.

    As in the authors' code, which has a pass for L1 and one for L2; a third one of the first modality, when labels are
    drawn, is left out.
    """
    return jax.tree.map(lambda x, y: x + DECAY**passes * (x - y), new, old)


def _moved_joints(joints: Mapping[str, Array], codes: Mapping[int, Codes], present: Mapping) -> dict[str, Array]:
    """Running averages of each modality's joint table [k, k] with the first one's assignments."""
    moved = {}
    for name, joint in joints.items():
        v = int(name.removeprefix("view"))
        new = jnp.matmul(kept(codes[0].c, both(present[0], present[v])).T, codes[v].c, precision="highest")
        moved[name] = DECAY * joint + (1 - DECAY) * new / len(codes[v].c)
    return moved


def _rescaling(where: Array | None) -> Array | float:
    """Takes a mean over all rows, of which those not `where` are 0, to the mean over the others."""
    return 1.0 if where is None else len(where) / jnp.maximum(where.sum(), 1)


def state(variables: Variables) -> dict[str, Any]:
    return {"params": variables["params"], "batch_stats": variables["batch_stats"]}
