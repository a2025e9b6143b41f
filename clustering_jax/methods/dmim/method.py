"""DMIM: Deep Mutual Information Maximin for cross-modal clustering (Mao, Yan, Guo and Ye; AAAI 2021).

One network for all modalities, which must have one width. The loss keeps what modalities share (L1: the mutual
information of their assignments to clusters and over-clusters), drops what they don't (L2) and fills the clusters
evenly (L3: cross-entropy with balanced pseudo-labels, drawn anew every few epochs). What the paper leaves open is a
setting, by default as in the first author's demonstration code.

A batch holds "view0", "view1", ... [n, d] and, where some are missing, "mask" bool [n, views].
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clustering_jax.errors import UserError, check_keywords, nearest
from clustering_jax.losses import balanced_labels, maximum_matching
from clustering_jax.method import Batch, Method, Objective, Phase, Spec, Variables
from clustering_jax.methods.dmim.network import Codes, Network, check_widths
from clustering_jax.methods.dmim.objective import (
    SUPERFLUOUS,
    Settings,
    draw_noise,
    having,
    modalities,
    objective,
    state,
    to_balance,
)
from clustering_jax.methods.views import kept, masks, mixture
from clustering_jax.training.optim import make_optimizer
from clustering_jax.typing import Array


def build(
    spec: Spec,
    *,
    over_clusters: int = 10,
    cluster_weight: float = 1.0,
    over_weight: float = 1.0,
    superfluous_weight: float = 1.0,
    balance_weight: float = 0.5,
    superfluous: str = "prior",
    heads: str = "h",
    symmetrize: bool = True,
    balanced: str = "first",
    double_softmax: bool = True,
    power: float = 10.0,
    refresh_epochs: int = 5,
    common_statistics: bool = True,
    trunk_std: float = 0.02,
    head_std: float = 0.0,
    prediction: str = "first",
    full_batch: bool = True,
    optimizer: dict | None = None,
) -> Method:
    """DMIM for `spec`; the paper's objective is L1 + L2 + L3.

    Args:
      spec: run. An epoch is one step with `full_batch`, else `spec.steps_per_epoch`.
      over_clusters: width of the second clustering head, in numbers of clusters.
      cluster_weight, over_weight: of the two mutual informations of L1. superfluous_weight: of L2, relative to
        what its form has in `SUPERFLUOUS`. balance_weight: of L3; 0 leaves out its labels too.
      superfluous: form of L2: "prior", the divergence of softmax(z) from the softmax of a sample of N(0, I), as in the
        authors' code, where it does little; "gaussian_kl", of the posterior from N(0, I); "posterior_skl",
        between the posteriors of two modalities, which bounds I(z_u; u | v); "none".
      heads: what the clustering heads read: "h", the trunk's features, or "z", the sample of the code.
      symmetrize: the joint tables of L1; the optimum then allows for swaps of two labels between modalities.
      balanced: whose assignments L3 takes: the "first" modality's, as in the authors' code; the "mean" of those a row
        has; or each modality's, which the others must predict, "swapped", as what is private can't be.
      double_softmax: soft-max those once more in the cross-entropy, as in the authors' code.
      power: of the assignments in `balanced_labels`. refresh_epochs: between two draws of the labels.
      common_statistics: one running mean and variance for all modalities, as in the authors' code, or one each.
      trunk_std, head_std: standard deviations of the initial weights; at 0 they are PyTorch's, uniform. How large they
        are decides how fast Adam's steps of one size turn them round, and so how much a run depends on its seed.
      prediction: "first": the first modality's assignments, 1/k for rows without it; "any": the first one's that a row
        has; "aligned_mean": of all that it has. The latter two rename the clusters to those of the first modality.
      full_batch: each step on all rows, else on batches of `spec.batch_size`, which should be much more than
        ``over_clusters * num_clusters`` rows.
      optimizer: settings of `make_optimizer`; the rate is 5e-4 unless given.

    Raises:
      UserError: an unknown setting or a value out of range.
    """
    _choose("superfluous", superfluous, SUPERFLUOUS)
    _choose("heads", heads, ("h", "z"))
    _choose("balanced", balanced, ("first", "mean", "swapped"))
    _choose("prediction", prediction, ("first", "any", "aligned_mean"))
    for name, value in (("over_clusters", over_clusters), ("power", power), ("refresh_epochs", refresh_epochs)):
        if not value > 0:
            raise UserError(f"model.{name} is {value}: choose a number above 0")
    for name, value in (("trunk_std", trunk_std), ("head_std", head_std)):
        if not 0 <= value < np.inf:
            raise UserError(f"model.{name} is {value}: choose 0 or more")
    weights = (cluster_weight, over_weight, superfluous_weight, balance_weight)
    settings = Settings(*weights, superfluous, balanced, symmetrize, double_softmax)
    k = spec.num_clusters
    network = Network(k, over_clusters * k, heads, common_statistics, trunk_std, head_std)

    def init(key, batch):
        rows, present = modalities(batch)
        check_widths(rows)
        variables = network.init(key, rows, True, present=present)
        return {**variables, "alignment": {f"view{v}": jnp.zeros((k, k)) for v in rows if v}}

    def loss(variables, batch, key):
        rows, _ = modalities(batch)
        noise = draw_noise(key, batch["index"], len(rows), rows[0].shape[1])
        return objective(network, settings, variables, batch, noise)

    @jax.jit
    def train_assignments(variables, batch):
        rows, present = modalities(batch)
        codes, _ = network.apply(state(variables), rows, True, present=present, mutable=["batch_stats"])
        return to_balance(codes, present, balanced)

    draw = jax.jit(partial(balanced_labels, power=power))
    total = jax.jit(lambda variables, batch, key: loss(variables, batch, key)[0])

    def with_labels(variables, batch):
        labels = [_drawn(draw, np.asarray(p), np.asarray(where)) for p, where in train_assignments(variables, batch)]
        return {**batch, "pseudo": np.stack(labels, axis=1)}

    # With the statistics of all rows, those that the steps of a full batch see: the labels then are the authors'
    # code's. The host holds them from one draw to the next, so that they are saved and resumed as targets are.
    def targets(key, variables, infer):
        return {"pseudo": with_labels(variables, _all_rows(variables, infer))["pseudo"]}

    def criterion(key, variables, infer):
        batch = _all_rows(variables, infer)
        batch = with_labels(variables, batch) if balance_weight else batch
        return float(total(variables, batch, key))

    def evaluated(variables, batch):
        rows, present = modalities(batch)
        return network.apply(state(variables), rows, False, present=present), present

    def embed(variables, batch):
        codes, present = evaluated(variables, batch)
        return jnp.concatenate([kept(code.read, present[v]) for v, code in codes.items()], axis=1)

    def predict(variables, batch):
        return assignments(*evaluated(variables, batch), variables["alignment"], prediction)

    chosen = {"learning_rate": 5e-4, **(optimizer or {})}
    check_keywords(make_optimizer, chosen, "optimizer")
    steps = 1 if full_batch else spec.steps_per_epoch["train"]
    tx = make_optimizer(total_steps=spec.epochs * steps, **chosen)
    phases = _phases(
        spec.epochs,
        refresh_epochs if balance_weight else spec.epochs,
        steps,
        objectives=(Objective(loss, tx),),
        targets=targets if balance_weight else None,
        whole=full_batch,
    )
    return Method(init, phases, embed, predict, criterion=criterion)


def assignments(codes: Mapping[int, Codes], present: Mapping, joints: Mapping[str, Array], prediction: str) -> Array:
    """Soft assignments [n, k] of the modalities that `prediction` names, clusters renamed to those of the first one.

    joints: of each modality with the first one, [k, k], running averages of the training.
    """
    has = having(codes, present)
    if prediction == "first":
        has &= jnp.array([v == 0 for v in codes])
    elif prediction == "any":
        has &= jnp.cumsum(has, 1) == 1
    own = [
        # Without an alignment, only labels swapped in pairs would be as good a result of the training.
        code.c if v == 0 or prediction == "first" else code.c[:, maximum_matching(joints[f"view{v}"])]
        for v, code in codes.items()
    ]
    return mixture(jnp.stack(own, 1), has)


def _drawn(draw: Callable, p: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Labels of the rows `where`, int32 [n]; -1 of the others."""
    labels = np.full(len(p), -1, np.int32)
    labels[where] = draw(p[where])
    return labels


def _all_rows(variables: Variables, infer: Callable) -> dict[str, Any]:
    """The batch of all rows; the network's running averages are of no account here."""
    rows, mask = (infer(function, variables) for function in (_stacked, masks))
    views = {f"view{v}": rows[:, v] for v in range(rows.shape[1])}
    return {**views, "mask": mask, "index": np.arange(len(rows), dtype=np.int32)}


def _stacked(variables: Variables, batch: Batch) -> Array:
    return jnp.stack(list(modalities(batch)[0].values()), 1)


def _phases(epochs: int, refresh: int, steps: int, **common: Any) -> tuple[Phase, ...]:
    """One phase for each draw of the labels; all share their objectives, and so one compiled step."""
    starts = range(0, max(epochs, 1), max(refresh, 1))
    return tuple(Phase("clusters", min(refresh, epochs - start) * steps, **common) for start in starts)


def _choose(name: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise UserError(f"model.{name} is '{value}'{nearest(value, choices)}")
