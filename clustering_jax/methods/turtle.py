"""TURTLE: Let Go of Your Labels with Unsupervised Transfer (Gadetsky, Jiang and Brbic, ICML 2024; arXiv 2406.07236).

The features of one or several encoders are frozen. The only thing learnt is a task encoder, one weight-normalised
affine map for each feature space; its mean softmax is the soft assignment tau. A labelling is good if linear
classifiers generalise it: in each step new linear classifiers are fitted to tau for a few Adam steps (the inner
problem), and tau then follows the classifiers (the outer problem).

A batch holds "image" [n, d], or "view0", "view1", ... [n, d_v] and, where rows are missing, "mask" bool [n, views].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random

from clustering_jax.losses.prior import divergence_from_prior
from clustering_jax.method import Method, Objective, Phase, Spec
from clustering_jax.methods.feature_spaces import (
    FeatureSpace,
    feature_spaces,
    initial_norms,
    space_names,
    updated_norms,
)
from clustering_jax.methods.generalization import generalization_score
from clustering_jax.methods.linear_probe import Probe, cross_entropy, fit_probe, initial_probe, logits_of
from clustering_jax.methods.monitor import occupancy
from clustering_jax.methods.prior import prior_of
from clustering_jax.methods.views import mixture, view_number
from clustering_jax.settings.turtle import Turtle
from clustering_jax.settings.validate import settings_of
from clustering_jax.training.optim import make_optimizer
from clustering_jax.typing import Array


def weight_normalized(layer: Mapping[str, Array]) -> dict[str, Array]:
    """The layer whose kernel has the direction of each column of "kernel" and the norms in "scale"."""
    direction = layer["kernel"] * lax.rsqrt(jnp.sum(layer["kernel"] ** 2, axis=0))
    return {"kernel": layer["scale"] * direction, "bias": layer["bias"]}


def assignments(params: Mapping[str, Any], spaces: Mapping[str, FeatureSpace]) -> tuple[dict[str, Array], Array]:
    """Soft assignments [n, k] in each space, and tau [n, k], their mean over the spaces that a row has."""
    p = {name: jax.nn.softmax(logits_of(weight_normalized(params[name]), space)) for name, space in spaces.items()}
    present = jnp.stack([space.weight > 0 for space in spaces.values()], axis=1)
    return p, mixture(jnp.stack(list(p.values()), axis=1), present)


def outer_terms(params: Any, layers: Any, spaces: Mapping[str, FeatureSpace], log_prior: Array | None) -> tuple:
    """The terms of the outer loss for fixed classifiers, and tau.

    Args:
      params: the task encoder.
      layers: the inner classifiers; they count as constants (a first-order hypergradient).
      spaces: features of the batch.
      log_prior: [k] logarithm of the expected shares of the clusters; None leaves the second term out.

    Returns:
      Cross-entropy of the classifiers with tau; KL divergence of the mean assignment of each space from the prior,
      summed over the spaces; tau [n, k].
    """
    p, tau = assignments(params, spaces)
    divergence = jnp.zeros(())
    if log_prior is not None:
        for name, space in spaces.items():
            divergence += divergence_from_prior(space.weight @ p[name], log_prior)
    return cross_entropy(lax.stop_gradient(layers), spaces, tau), divergence, tau


def build(spec: Spec, *, optimizer: dict | None = None, **model: Any) -> Method:
    """TURTLE for a run.

    Args:
      spec: the run. Where an epoch has one step only, each step takes all rows: several seeds then read them once.
      optimizer: fields of `Optimizer`, for the task encoder.
      model: fields of `Turtle`, which documents them and holds their defaults.

    Returns:
      The method.

    Raises:
      UserError: an unknown setting or a value out of range.
    """
    s = settings_of(Turtle, model, "method 'turtle'", group="model")
    k, prior = spec.num_clusters, prior_of(s.prior, spec.num_clusters, none=True)
    equal = np.full(k, -np.log(k), np.float32)

    def init(key, batch):
        widths = {name: batch[name].shape[1] for name in space_names(batch)}
        params = initial_probe(key, widths, k).layers
        for layer in params.values():
            layer["scale"] = jnp.linalg.norm(layer["kernel"], axis=0)
        warm = {"inner": initial_probe(random.fold_in(key, len(widths)), widths, k)._asdict()} if s.warm_start else {}
        norms = {"norms": initial_norms(batch)} if s.scale else {}
        return {"params": params, **norms, **warm, **prior.initial(k)}

    def loss(variables, batch, key):
        norms = {"norms": updated_norms(variables["norms"], batch)} if s.scale else {}
        spaces = feature_spaces(norms.get("norms"), batch)
        tau = lax.stop_gradient(assignments(variables["params"], spaces)[1])
        # The loop's key changes with the epoch only; no two batches of an epoch begin with the same row.
        key = random.fold_in(key, batch["index"][0])
        widths = {name: space.rows.shape[1] for name, space in spaces.items()}
        inner = Probe(**variables["inner"]) if s.warm_start else initial_probe(key, widths, k)
        inner = lax.stop_gradient(fit_probe(inner, spaces, tau, s.inner_steps, s.inner_learning_rate))
        log_prior = equal if prior.kind == "uniform" else prior.log(variables)
        outer, divergence, tau = outer_terms(variables["params"], inner.layers, spaces, log_prior)
        terms = {"outer": outer, "prior": s.gamma * divergence}
        changed = {**norms, **({"inner": inner._asdict()} if s.warm_start else {})}
        changed |= prior.updated(variables, tau.mean(0))
        return sum(terms.values()), (changed, {**terms, **occupancy(tau)})

    def spaces_of(variables, batch):
        return feature_spaces(variables.get("norms"), batch)

    def predict(variables, batch):
        return assignments(variables["params"], spaces_of(variables, batch))[1]

    def embed(variables, batch):
        """The frozen features, scaled, side by side; zeros for a space that the batch lacks."""
        spaces = spaces_of(variables, batch)
        n = next(iter(spaces.values())).rows.shape[0]
        parts = {name: jnp.zeros((n, len(layer["kernel"]))) for name, layer in variables["params"].items()}
        parts |= {name: space.scale * space.rows for name, space in spaces.items()}
        return jnp.concatenate([parts[name] for name in sorted(parts, key=_order)], axis=1)

    def present(variables, batch):
        return jnp.stack([space.weight > 0 for space in spaces_of(variables, batch).values()], axis=1)

    def criterion(key, variables, infer):
        names = sorted(variables["params"], key=_order)
        ends = np.cumsum([len(variables["params"][name]["kernel"]) for name in names])
        rows, mask = infer(embed, variables), infer(present, variables)
        spaces = np.split(rows, ends[:-1], axis=1)
        return -generalization_score(spaces, infer(predict, variables).argmax(1), mask=mask)

    steps = spec.steps_per_epoch["train"]
    total = s.num_steps or spec.epochs * steps
    tx = make_optimizer(total_steps=total, **(optimizer or {}))
    phases = (Phase("transfer", total, (Objective(loss, tx),), whole=steps == 1),)
    return Method(init, phases, embed, predict, criterion=criterion)


def _order(name: str) -> int:
    """Position of a space: views come in the order of their numbers."""
    return view_number(name) if name.startswith("view") else 0
