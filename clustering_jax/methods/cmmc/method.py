"""CMMC / MFLVC: contrastive multi-view clustering (Xu, Tang, Ren, Peng, Zhu and He; arXiv 2106.11193, CVPR 2022).

Each view has an autoencoder. On its low-level features z, two heads that all views share give high-level features h,
which are contrasted row by row, and soft assignments q, which are contrasted column by column. Training has three
stages under one optimiser: reconstruction, contrast, and fine-tuning on pseudo-labels that k-means finds in h.

A batch holds "view0", "view1", ... [n, d_v] and, where some are missing, "mask" bool [n, views]. Losses and predictions
then count only the views that a row has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from clustering_jax.losses import (
    cluster_contrast,
    imbalance,
    nt_xent,
    pseudo_label_loss,
)
from clustering_jax.method import Method, Objective, Phase, Spec
from clustering_jax.methods.cmmc.bdcl import bdcl_losses
from clustering_jax.methods.cmmc.held_out import confident_labels, held_out_probabilities
from clustering_jax.methods.cmmc.network import Network, Outputs, assignments
from clustering_jax.methods.cmmc.pseudo_labels import joint_pseudo_labels, named_once, pseudo_labels, renamed
from clustering_jax.methods.cmmc.settling import settling
from clustering_jax.methods.cmmc.weighting import ViewWeights
from clustering_jax.methods.cmmc.weights import load_cmmc
from clustering_jax.methods.monitor import occupancy
from clustering_jax.methods.prior import prior_of
from clustering_jax.methods.views import (
    fill_missing,
    mean_pairwise_mi,
    view_mask,
    view_masks,
    view_names,
    view_pairs,
)
from clustering_jax.nn.chunks import chunked
from clustering_jax.settings.cmmc import CMMC
from clustering_jax.settings.validate import settings_of
from clustering_jax.training.optim import make_optimizer
from clustering_jax.typing import Array


def reconstruction_errors(reconstructions: Sequence[Array], batch: Mapping[str, Array]) -> list[Array]:
    """The mean squared error over the entries of each row, [n], for each view."""
    views = zip((batch[name] for name in view_names(batch)), reconstructions, strict=True)
    return [jnp.mean((x.astype(jnp.float32) - y) ** 2, axis=1) for x, y in views]


def reconstruction_loss(errors: list[Array], masks: list[Array | None]) -> Array:
    """Paper, eq. 1: the mean over the rows of each view, summed over the views.

    Args:
      errors: `reconstruction_errors`.
      masks: the mask of each view, see `view_masks`.
    """
    means = [_mean(rows, mask) for rows, mask in zip(errors, masks, strict=True)]
    return sum(means, start=jnp.zeros(()))


def _mean(rows: Array, mask: Array | None) -> Array:
    return jnp.mean(rows) if mask is None else jnp.sum(rows, where=mask) / jnp.maximum(mask.sum(), 1)


def contrast_losses(
    outputs: Outputs,
    masks: list[Array | None],
    *,
    feature_temperature: float,
    label_temperature: float,
    entropy_per_pair: bool,
    log_prior: Array | None = None,
    weights: Array | None = None,
) -> dict[str, Array]:
    """Paper, eq. 5 to 8: contrast of features and of clusters over the pairs of views, and the balance of each view.

    Args:
      outputs: outputs of the network for all views.
      masks: the mask of each view, see `view_masks`.
      feature_temperature: see `CMMC`.
      label_temperature: see `CMMC`.
      entropy_per_pair: see `CMMC`.
      log_prior: [k] logarithms of the expected shares of the clusters; None for equal shares.
      weights: weight of each view, [views]; the contrast of a pair has the product of its two. None is 1.

    Returns:
      The terms "feature", "cluster" and "imbalance".
    """
    feature = cluster = balance = jnp.zeros(())
    for v, w, mask, weight in view_pairs(masks, weights):
        feature += weight * nt_xent(outputs.h[v], outputs.h[w], temperature=feature_temperature, where=mask)
        # Rows of zeros change neither the cosine nor the sum of a column.
        p, q = (fill_missing(outputs.q[i], mask) for i in (v, w))
        cluster += weight * cluster_contrast(p, q, temperature=label_temperature)
        # As in the authors' code: once per pair, so that each view counts V - 1 times. The paper has it once.
        balance += (imbalance(p, log_prior=log_prior) + imbalance(q, log_prior=log_prior)) * entropy_per_pair
    if not entropy_per_pair:
        views = zip(outputs.q, masks, strict=True)
        each = (imbalance(fill_missing(q, mask), log_prior=log_prior) for q, mask in views)
        balance = sum(each, start=jnp.zeros(()))
    return {"feature": feature, "cluster": cluster, "imbalance": balance}


def matched_targets(q: list[Array], pseudo: Array, k: int) -> list[Array]:
    """Renames the k-means clusters so that they agree best with the present argmax of q (paper, eq. 10 and 11).

    Args:
      q: soft assignments in each view, [n, k].
      pseudo: pseudo-labels, int [n, views], negative where the view is missing.
      k: number of clusters.

    Returns:
      Labels for each view, int [n], negative where the view is missing.
    """
    return [renamed(pseudo[:, v], rows.argmax(1), k) for v, rows in enumerate(q)]


def matching_loss(
    forward: Callable, batch: Mapping[str, Array], k: int, double_softmax: bool, *, named: bool = False
) -> tuple[Array, Outputs]:
    """Paper, eq. 12: cross-entropy of q with the matched pseudo-labels, summed over views.

    Args:
      forward: ``batch -> Outputs``.
      batch: views, and "pseudo" int [n, views].
      k: number of clusters.
      double_softmax: see `CMMC`.
      named: whether the pseudo-labels are numbers of clusters already.

    Returns:
      The loss and the outputs.
    """
    outputs = forward(batch)
    targets = list(batch["pseudo"].T) if named else matched_targets(outputs.q, batch["pseudo"], k)
    pairs = zip(outputs.q, targets, strict=True)
    value = sum((pseudo_label_loss(q, y, double_softmax=double_softmax) for q, y in pairs), start=jnp.zeros(()))
    return value, outputs


def build(spec: Spec, *, optimizer: dict | None = None, **model: Any) -> Method:
    """CMMC for a run.

    Args:
      spec: the run; `spec.epochs` is the length of the contrastive stage.
      optimizer: fields of `Optimizer`, for all three stages.
      model: fields of `CMMC`, which documents them and holds their defaults.

    Returns:
      The method.

    Raises:
      UserError: an unknown setting or a value out of range.
    """
    s = settings_of(CMMC, model, "method 'cmmc'", group="model")
    k, prior = spec.num_clusters, prior_of(s.prior, spec.num_clusters)
    network = Network(k, tuple(s.hidden), s.latent_dim, s.feature_dim, jnp.dtype(s.dtype), s.body)

    bdcl, contrast_terms, weights = s.objective == "bdcl", _contrast_terms(s), ViewWeights(s.view_weights)

    def forward(params, batch):
        return network.apply({"params": params}, batch)

    def decoded(params, batch, noise=None):
        """`Outputs` and `reconstruction_errors`. The reconstructions of all rows are never in memory together."""

        def part(rows):
            outputs = network.apply({"params": params}, rows, decode=True, noise=noise)
            return outputs._replace(x=[]), reconstruction_errors(outputs.x, rows)

        return chunked(part, s.chunk)(batch)

    def init(key, batch):
        return {**network.init(key, batch, decode=True), **prior.initial(k), **weights.initial(len(view_names(batch)))}

    def load(path, variables):
        return {**variables, **load_cmmc(path, {"params": variables["params"]})}

    def reconstruct(variables, batch, key):
        value = reconstruction_loss(decoded(variables["params"], batch)[1], view_masks(batch))
        return value, ({}, {"reconstruction": value})

    def contrast(variables, batch, key):
        (outputs, errors), masks = decoded(variables["params"], batch, key if bdcl else None), view_masks(batch)
        changed = weights.updated(batch)
        weight = weights.of(changed, batch)
        terms = contrast_terms(outputs, masks, log_prior=prior.log(variables), weights=weight)
        terms["reconstruction"] = reconstruction_loss(errors, masks)
        q = assignments(outputs, masks, weight)
        return sum(terms.values()), ({**prior.updated(variables, q.mean(0)), **changed}, {**terms, **occupancy(q)})

    def match(variables, batch, key):
        apply = chunked(partial(forward, variables["params"]), s.chunk)
        value, outputs = matching_loss(apply, batch, k, s.double_softmax, named=s.match_once)
        q = assignments(outputs, view_masks(batch), weights.of(variables, batch))
        return value, ({}, {"matching": value, **occupancy(q)})

    def features(variables, batch):
        return jnp.stack(forward(variables["params"], batch).h, axis=1)

    def targets(key, variables, infer):
        pseudo = unnamed(key, variables, infer)["pseudo"]
        if s.match_once:
            clusters, weight = infer(predict, variables).argmax(1), weights.values(variables, pseudo.shape[1])
            pseudo = named_once(pseudo, clusters, k, weight)
        return {"pseudo": pseudo}

    def unnamed(key, variables, infer):
        if s.pseudo_labels_of == "features":
            mask = infer(view_mask, variables)
            return pseudo_labels(key, infer(features, variables), mask, k, s.kmeans_restarts)
        rows, mask = views(variables, infer)
        if s.pseudo_labels_of == "views":
            return joint_pseudo_labels(key, rows, mask, k, s.kmeans_restarts)
        joint = infer(predict, variables).argmax(1)
        joint = confident_labels(joint, held_out_probabilities(key, rows, mask, joint, k))
        return {"pseudo": np.where(mask, joint[:, None], -1).astype(np.int32)}

    def views(variables, infer):
        mask = infer(view_mask, variables)
        return [infer(partial(view, v), variables) for v in range(mask.shape[1])], mask

    def view(number, variables, batch):
        return batch[view_names(batch)[number]].astype(jnp.float32)

    def embed(variables, batch):
        each = zip(forward(variables["params"], batch).h, view_masks(batch), strict=True)
        return jnp.concatenate([fill_missing(h, mask) for h, mask in each], axis=1)

    def predict(variables, batch):
        return assignments(forward(variables["params"], batch), view_masks(batch), weights.of(variables, batch))

    def soft(variables, batch):
        return jnp.stack(forward(variables["params"], batch).q, axis=1)

    def criterion(key, variables, infer):
        return -mean_pairwise_mi(infer(soft, variables).argmax(2), infer(view_mask, variables))

    steps = spec.steps_per_epoch["train"]
    passes = (s.reconstruction_epochs * steps, spec.epochs * steps)
    lengths = (*(max(n, s.minimum_steps) if n else 0 for n in passes), s.matching_steps)
    tx = make_optimizer(total_steps=sum(lengths), **(optimizer or {}))
    ending = settling(targets, predict) if s.until_settled else {"targets": targets}
    phases: tuple[Phase, ...] = (
        Phase("reconstruct", lengths[0], (Objective(reconstruct, tx),)),
        Phase("contrast", lengths[1], (Objective(contrast, tx),), targets=weights.targets(views, k)),
        Phase("match", lengths[2], (Objective(match, tx),), whole=True, **ending),
    )
    # Keep one phase of zero steps, so that `epochs=0` (score released weights only) still has a phase.
    phases = tuple(p for p in phases if p.num_steps) or phases[:1]
    conv = s.body == "conv"
    return Method(init, phases, embed, predict, load=load, criterion=criterion, consensus=True, avoid_scan_on_cpu=conv)


def _contrast_terms(s: CMMC) -> Callable[..., dict[str, Array]]:
    """The losses of the second stage but for the reconstruction: ``(outputs, masks, *, log_prior) -> terms``."""
    if s.objective == "bdcl":
        names = ("feature_temperature", "pair_weight", "decorrelation_weight")
        return partial(bdcl_losses, **{name: getattr(s, name) for name in names})
    names = ("feature_temperature", "label_temperature", "entropy_per_pair")
    return partial(contrast_losses, **{name: getattr(s, name) for name in names})
