"""CMMC / MFLVC: contrastive multi-view clustering (Xu, Tang, Ren, Peng, Zhu and He; arXiv 2106.11193, CVPR 2022).

An autoencoder for each view; on its low-level features z two heads that all views share: high-level features h, which
views contrast row by row, and soft assignments q, which they contrast column by column. Three stages under one
optimiser: reconstruction, contrast, and fine-tuning on pseudo-labels that k-means finds in h.

A batch holds "view0", "view1", ... [n, d_v] and, where some are missing, "mask" bool [n, views]: losses and predictions
then count only what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np

from clustering_jax.errors import UserError, check_keywords
from clustering_jax.kmeans import kmeans
from clustering_jax.losses import (
    cluster_contrast,
    contingency,
    imbalance,
    maximum_matching,
    nt_xent,
    pseudo_label_loss,
)
from clustering_jax.method import Method, Objective, Phase, Spec
from clustering_jax.methods.cmmc.held_out import confident_labels, held_out_probabilities
from clustering_jax.methods.cmmc.network import Network, Outputs, assignments
from clustering_jax.methods.cmmc.weights import load_cmmc
from clustering_jax.methods.monitor import occupancy
from clustering_jax.methods.views import both, kept, masks, presence, shared_information, view_names
from clustering_jax.nn.chunks import chunked
from clustering_jax.training.optim import make_optimizer
from clustering_jax.typing import Array

# Of the pseudo-labels.
SOURCES = ("features", "views", "assignments", "held_out")


def reconstruction_errors(outputs: Outputs, batch: Mapping[str, Array]) -> list[Array]:
    """The mean squared error over the entries of each row, [n], view by view."""
    views = zip((batch[name] for name in view_names(batch)), outputs.x, strict=True)
    return [jnp.mean((x.astype(jnp.float32) - y) ** 2, axis=1) for x, y in views]


def reconstruction_loss(errors: list[Array], present: list[Array | None]) -> Array:
    """Paper, eq. 1: the mean over the rows of each view, summed over views."""
    means = [_mean(rows, where) for rows, where in zip(errors, present, strict=True)]
    return sum(means, start=jnp.zeros(()))


def _mean(rows: Array, where: Array | None) -> Array:
    return jnp.mean(rows) if where is None else jnp.sum(rows, where=where) / jnp.maximum(where.sum(), 1)


def contrast_losses(
    outputs: Outputs,
    present: list[Array | None],
    *,
    feature_temperature: float,
    label_temperature: float,
    entropy_per_pair: bool,
) -> dict[str, Array]:
    """Paper, eq. 5 to 8: contrast of features and of clusters over the pairs of views, and the balance of each view."""
    feature = cluster = balance = jnp.zeros(())
    for v, w in combinations(range(len(outputs.h)), 2):
        where = both(present[v], present[w])
        feature += nt_xent(outputs.h[v], outputs.h[w], temperature=feature_temperature, where=where)
        # No column's cosine or sum sees rows of zeros.
        p, q = (kept(outputs.q[i], where) for i in (v, w))
        cluster += cluster_contrast(p, q, temperature=label_temperature)
        # As in the authors' code: once per pair, so that each view counts V - 1 times. The paper has it once.
        balance += (imbalance(p) + imbalance(q)) * entropy_per_pair
    if not entropy_per_pair:
        balance = sum(imbalance(kept(q, where)) for q, where in zip(outputs.q, present, strict=True))
    return {"feature": feature, "cluster": cluster, "imbalance": balance}


def matched_targets(q: list[Array], pseudo: Array, k: int) -> list[Array]:
    """The k-means clusters renamed to agree best with the present argmax of q, view by view (paper, eq. 10 and 11).

    pseudo: int [n, views], negative where the view is missing; what comes back is too.
    """
    targets = []
    for v, rows in enumerate(q):
        names = maximum_matching(contingency(pseudo[:, v], rows.argmax(1), k, k))
        targets.append(jnp.where(pseudo[:, v] < 0, -1, names[pseudo[:, v]]))
    return targets


def matching_loss(forward: Callable, batch: Mapping[str, Array], k: int, double_softmax: bool) -> tuple[Array, Array]:
    """Paper, eq. 12: cross-entropy of q with the matched pseudo-labels, summed over views. Also the mean q, [n, k]."""
    outputs = forward(batch)
    targets = matched_targets(outputs.q, batch["pseudo"], k)
    value = sum(pseudo_label_loss(q, y, double_softmax=double_softmax) for q, y in zip(outputs.q, targets, strict=True))
    return value, assignments(outputs, presence(batch))


def pseudo_labels(key: Array, features: np.ndarray, mask: np.ndarray, k: int, restarts: int) -> dict[str, np.ndarray]:
    """k-means on each view's features, min-max scaled by column: ``{"pseudo": int32 [n, views]}``, -1 where missing.

    features: [n, views, d]. mask: bool [n, views].
    """
    n, views, _ = features.shape
    pseudo = np.full((n, views), -1, np.int32)
    for v in range(views):
        rows = np.flatnonzero(mask[:, v])
        x = features[rows, v] - features[rows, v].min(0)
        x = x / np.where(x.max(0) > 0, x.max(0), 1)
        # A view that fewer rows have than there are clusters tells as many apart as it has.
        few = min(k, len(rows))
        pseudo[rows, v] = kmeans(jax.random.fold_in(key, v), jnp.asarray(x), few, restarts=restarts).labels
    return {"pseudo": pseudo}


def joint_pseudo_labels(
    key: Array, views: list[np.ndarray], mask: np.ndarray, k: int, restarts: int
) -> dict[str, np.ndarray]:
    """`pseudo_labels`, but by one k-means on the views as they are, side by side, each of variance 1 in all.

    What only some views tell apart, and their contrast forgets, is there still. A missing view is at its mean.

    views: [n, d] each. mask: bool [n, views].
    """
    parts = []
    for x, where in zip(views, mask.T[..., None], strict=True):
        x = np.where(where, x - x.mean(0, where=where), 0)
        variance = np.square(x).sum() / where.sum()
        parts.append(x / variance**0.5 if variance > 0 else x)
    labels = kmeans(key, jnp.asarray(np.concatenate(parts, 1)), k, restarts=restarts).labels
    return {"pseudo": np.where(mask, np.asarray(labels)[:, None], -1).astype(np.int32)}


def build(
    spec: Spec,
    *,
    hidden: tuple[int, ...] = (500, 500, 2000),
    latent_dim: int = 512,
    feature_dim: int = 128,
    feature_temperature: float = 0.5,
    label_temperature: float = 1.0,
    reconstruction_epochs: int = 200,
    matching_steps: int = 50,
    kmeans_restarts: int = 100,
    pseudo_labels_of: str = "features",
    chunk: int = 0,
    double_softmax: bool = True,
    entropy_per_pair: bool = True,
    dtype: str = "float32",
    optimizer: dict | None = None,
) -> Method:
    """CMMC for `spec`; `spec.epochs` is the length of the contrastive stage.

    Args:
      spec: run.
      hidden: widths of the encoders' hidden layers; decoders mirror them.
      latent_dim, feature_dim: widths of z and of h.
      feature_temperature, label_temperature: of the two contrasts.
      reconstruction_epochs: length of the first stage. matching_steps: of the third, each on the whole data set.
      kmeans_restarts: of the pseudo-labels.
      pseudo_labels_of: where they come from: "features" is k-means on h, view by view, as published; "views" is k-means
        on the views themselves, side by side and of one variance, for views that complement each other, see
        `joint_pseudo_labels`; "assignments" is no k-means, but what the views together say, the prediction; "held_out"
        is these, but for rows that classifiers trained on the others surely see elsewhere, see `confident_labels`.
      chunk: rows that pass through the network at a time within a step, the same gradient in less memory, see
        `chunked`; 0 is all at once.
      double_softmax: soft-max q again before the cross-entropy, as in the authors' code; the paper does not. It hardly
        moves a network that is sure already, to pseudo-labels of "views" or "held_out".
      entropy_per_pair: the balance term once for each pair of views, as in the authors' code, or (paper) for each view.
      dtype: of the autoencoders' arithmetic, "float32" or "bfloat16"; heads and losses stay in float32.
      optimizer: settings of `make_optimizer`, for all three stages.

    Raises:
      UserError: an unknown setting or a value out of range.
    """
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"model.dtype is '{dtype}': choose float32 or bfloat16")
    if pseudo_labels_of not in SOURCES:
        raise UserError(f"model.pseudo_labels_of is '{pseudo_labels_of}': choose {', '.join(SOURCES)}")
    _check_values(feature_temperature, label_temperature, kmeans_restarts, reconstruction_epochs, matching_steps, chunk)
    for name, widths in (("hidden", hidden), ("latent_dim", [latent_dim]), ("feature_dim", [feature_dim])):
        if min(widths, default=1) < 1:
            raise UserError(f"model.{name} is {min(widths)}: choose widths of 1 or more")
    k = spec.num_clusters
    network = Network(k, tuple(hidden), latent_dim, feature_dim, jnp.dtype(dtype))

    def forward(params, batch):
        return network.apply({"params": params}, batch)

    def decoded(params, batch):
        """`Outputs` and `reconstruction_errors`; reconstructions of all rows at once are never needed."""

        def part(rows):
            outputs = network.apply({"params": params}, rows, decode=True)
            return outputs._replace(x=[]), reconstruction_errors(outputs, rows)

        return chunked(part, chunk)(batch)

    def init(key, batch):
        return network.init(key, batch, decode=True)

    def reconstruct(variables, batch, key):
        value = reconstruction_loss(decoded(variables["params"], batch)[1], presence(batch))
        return value, ({}, {"reconstruction": value})

    def contrast(variables, batch, key):
        (outputs, errors), present = decoded(variables["params"], batch), presence(batch)
        terms = contrast_losses(
            outputs,
            present,
            feature_temperature=feature_temperature,
            label_temperature=label_temperature,
            entropy_per_pair=entropy_per_pair,
        )
        terms["reconstruction"] = reconstruction_loss(errors, present)
        return sum(terms.values()), ({}, {**terms, **occupancy(assignments(outputs, present))})

    def match(variables, batch, key):
        value, q = matching_loss(chunked(partial(forward, variables["params"]), chunk), batch, k, double_softmax)
        return value, ({}, {"matching": value, **occupancy(q)})

    def features(variables, batch):
        return jnp.stack(forward(variables["params"], batch).h, axis=1)

    def targets(key, variables, infer):
        mask = infer(masks, variables)
        if pseudo_labels_of == "features":
            return pseudo_labels(key, infer(features, variables), mask, k, kmeans_restarts)
        if pseudo_labels_of == "views":
            return joint_pseudo_labels(key, views(variables, infer, mask), mask, k, kmeans_restarts)
        joint = infer(predict, variables).argmax(1)
        if pseudo_labels_of == "held_out":
            joint = confident_labels(joint, held_out_probabilities(key, views(variables, infer, mask), mask, joint, k))
        return {"pseudo": np.where(mask, joint[:, None], -1).astype(np.int32)}

    def views(variables, infer, mask):
        return [infer(partial(view, v), variables) for v in range(mask.shape[1])]

    def view(number, variables, batch):
        return batch[view_names(batch)[number]].astype(jnp.float32)

    def embed(variables, batch):
        each = zip(forward(variables["params"], batch).h, presence(batch), strict=True)
        return jnp.concatenate([kept(h, where) for h, where in each], axis=1)

    def predict(variables, batch):
        return assignments(forward(variables["params"], batch), presence(batch))

    def soft(variables, batch):
        return jnp.stack(forward(variables["params"], batch).q, axis=1)

    def criterion(key, variables, infer):
        return -shared_information(infer(soft, variables).argmax(2), infer(masks, variables))

    settings = dict(optimizer or {})
    check_keywords(make_optimizer, settings, "optimizer")
    steps = spec.steps_per_epoch["train"]
    lengths = (reconstruction_epochs * steps, spec.epochs * steps, matching_steps)
    tx = make_optimizer(total_steps=sum(lengths), **settings)
    phases = (
        Phase("reconstruct", lengths[0], (Objective(reconstruct, tx),)),
        Phase("contrast", lengths[1], (Objective(contrast, tx),)),
        Phase("match", lengths[2], (Objective(match, tx),), targets=targets, whole=True),
    )
    # One of no step stays where nothing is trained, and released weights are only scored.
    phases = tuple(p for p in phases if p.num_steps) or phases[:1]
    return Method(init, phases, embed, predict, load=load_cmmc, criterion=criterion, consensus=True)


def _check_values(feature: float, label: float, restarts: int, epochs: int, steps: int, chunk: int) -> None:
    """Raises UserError for the first value out of range."""
    positive = {"feature_temperature": feature, "label_temperature": label, "kmeans_restarts": restarts}
    wrong = [f"model.{name} is {value}: choose a number above 0" for name, value in positive.items() if not value > 0]
    counts = {"reconstruction_epochs": epochs, "matching_steps": steps, "chunk": chunk}
    wrong += [f"model.{name} is {value}: choose 0 or more" for name, value in counts.items() if value < 0]
    if wrong:
        raise UserError(wrong[0])
