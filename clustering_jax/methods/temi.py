"""TEMI: Exploring the Limits of Deep Image Clustering using Pretrained Models (Adaloglou, Michels, Kalisch and
Kollmann, BMVC 2023; arXiv 2303.17896).

The features of one encoder are frozen. Several cluster heads learn side by side to give a row and one of its nearest
neighbours the same cluster, by the pointwise mutual information of a student's and a teacher's assignments. The teacher
is a moving average of the student. Pairs that the teachers put into different clusters count less: such a neighbour is
probably a wrong one.

A batch holds "image" [n, d] and for each row a random one of its nearest neighbours, "image_partner" [n, d].
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from clustering_jax.data.base import Dataset
from clustering_jax.errors import UserError
from clustering_jax.kmeans.neighbours import nearest_neighbours
from clustering_jax.losses import normalize
from clustering_jax.method import Method, Objective, Phase, Spec
from clustering_jax.methods.cache import ArrayCache
from clustering_jax.methods.feature_spaces import feature_spaces, initial_norms, space_names, updated_norms
from clustering_jax.methods.monitor import occupancy
from clustering_jax.methods.prior import prior_of
from clustering_jax.settings.temi import Temi
from clustering_jax.settings.validate import settings_of
from clustering_jax.training.optim import make_optimizer
from clustering_jax.typing import Array, Float

# A run of fewer steps warns.
FEW_STEPS = 1000
MEAN_DECAY = 0.9  # of the running mean of the teachers' assignments


class Head(nn.Module):
    """Linear, GELU, linear, L2-normalise, weight-normalised linear without bias: [n, d] to features and logits."""

    num_clusters: int
    hidden: int
    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "n d"]) -> tuple[Float[Array, "n w"], Float[Array, "n k"]]:
        # As in the authors' code: a normal of deviation .02, which is truncated so far out that it cuts nothing.
        initial = nn.initializers.normal(0.02)
        x = nn.gelu(nn.Dense(self.hidden, kernel_init=initial, name="linear_0")(x), approximate=False)
        x = normalize(nn.Dense(self.width, kernel_init=initial, name="linear_1")(x))
        kernel = self.param("last_kernel", initial, (self.width, self.num_clusters))
        scale = self.param("last_scale", nn.initializers.ones, (self.num_clusters,))
        return x, x @ (scale * kernel * lax.rsqrt(jnp.sum(kernel**2, axis=0)))


def pair_weights(t: Float[Array, "h n k"], partner: Float[Array, "h n k"]) -> Float[Array, " n"]:
    """How far the teachers agree on a row and its partner, [n] in [0, 1]: the mean over heads of sum_c t_c t'_c."""
    return jnp.einsum("hnk,hnk->n", t, partner) / len(t)


def pointwise_information(
    log_s: Float[Array, "h n k"],
    log_t: Float[Array, "h n k"],
    mean: Float[Array, "h k"],
    beta: float,
    log_prior: Float[Array, "*h k"] | None = None,
) -> Float[Array, "h n"]:
    """Pointwise mutual information of a row and its partner: log sum_c (s_c t_c)^beta / m_c.

    With a prior pi, the summands are multiplied by pi_c. If all rows are certain of their clusters, the mean over the
    rows is the entropy of m, and with a prior the negative divergence of m from it.

    Args:
      log_s: logarithms of the student's assignments of one row of each pair.
      log_t: logarithms of the teacher's assignments of the other row.
      mean: mean assignment m of the teacher.
      beta: 1 is the mutual information; a smaller exponent counters one-hot collapse.
      log_prior: logarithms of the expected shares of the clusters, [k] or [h, k]; None for equal shares.
    """
    # A mean that underflows to 0 must not give an infinite loss.
    log_mean = jnp.log(jnp.maximum(mean, jnp.finfo(mean.dtype).tiny))
    log_mean = log_mean if log_prior is None else log_mean - log_prior
    return jax.nn.logsumexp(beta * (log_s + log_t) - log_mean[:, None], axis=2)


def head_losses(
    students: tuple[Array, Array],
    teachers: tuple[Array, Array],
    mean: Array,
    beta: float,
    log_prior: Array | None = None,
) -> tuple[Float[Array, " h"], Float[Array, " n"]]:
    """Loss of each head, and the weight of each pair.

    Args:
      students: log-assignments [h, n, k] of the rows and of their partners.
      teachers: the same of the teachers; they count as constants.
      mean: [h, k] mean assignment of each teacher.
      beta: exponent, see `pointwise_information`.
      log_prior: see `pointwise_information`.
    """
    weight = pair_weights(*map(jnp.exp, teachers))
    crossed = zip(students, reversed(teachers), strict=True)
    information = sum(pointwise_information(log_s, log_t, mean, beta, log_prior) for log_s, log_t in crossed) / 2
    return -jnp.mean(weight * information, axis=1), weight


def build(spec: Spec, *, optimizer: dict | None = None, **model: Any) -> Method:
    """TEMI for a run.

    Args:
      spec: the run.
      optimizer: fields of `Optimizer`.
      model: fields of `Temi`, which documents them and holds their defaults.

    Returns:
      The method.

    Raises:
      UserError: an unknown setting or a value out of range.
    """
    s = settings_of(Temi, model, "method 'temi'", group="model")
    k, steps = spec.num_clusters, spec.steps_per_epoch["train"]
    prior = prior_of(s.prior, k)
    head = Head(k, s.hidden, s.width)
    side_by_side = nn.vmap(Head, {"params": 0}, {"params": True}, in_axes=None, axis_size=s.heads)
    network = side_by_side(k, s.hidden, s.width)

    def scaled(norms, batch):
        (space,) = feature_spaces(norms, batch).values()
        return space.scale * space.rows

    def init(key, batch):
        if space_names(batch) != ["image"]:
            raise UserError("temi takes one feature space: choose data.source embeddings, or method turtle")
        params = network.init(key, batch["image"].astype(jnp.float32))["params"]
        progress = {"steps": jnp.zeros(()), "loss": jnp.zeros(s.heads), "mean": jnp.full((s.heads, k), 1 / k)}
        norms = {"norms": initial_norms(batch)} if s.scale else {}
        teacher = jax.tree.map(jnp.copy, params)
        return {"params": params, "teacher": teacher, "progress": progress, **norms, **prior.initial(s.heads, k)}

    def log_assignments(params, rows, temperature):
        return jax.nn.log_softmax(network.apply({"params": params}, rows)[1] / temperature)

    def loss(variables, batch, key):
        params, progress = dict(variables["params"]), variables["progress"]
        norms = {"norms": updated_norms(variables["norms"], batch)} if s.scale else {}
        pair = [scaled(norms.get("norms"), {"image": batch[name]}) for name in ("image", "image_partner")]
        teacher = optax.incremental_update(lax.stop_gradient(params), variables["teacher"], 1 - s.teacher_decay)
        teachers = tuple(lax.stop_gradient(log_assignments(teacher, rows, s.teacher_temperature)) for rows in pair)
        both = sum(jnp.exp(log_t).mean(1) for log_t in teachers) / 2
        mean = MEAN_DECAY * progress["mean"] + (1 - MEAN_DECAY) * both
        first_epoch = progress["steps"] < steps
        last = {name: params[name] for name in ("last_kernel", "last_scale")}
        params |= {name: jnp.where(first_epoch, lax.stop_gradient(x), x) for name, x in last.items()}
        students = tuple(log_assignments(params, rows, s.student_temperature) for rows in pair)
        losses, weight = head_losses(students, teachers, mean, s.beta, prior.log(variables))
        # The mean over the steps of this epoch so far.
        epoch_loss = optax.incremental_update(losses, progress["loss"], 1 / (progress["steps"] % steps + 1))
        changed = {"steps": progress["steps"] + 1, "loss": epoch_loss, "mean": mean}
        terms = {"information": losses.mean(), "pair_weight": weight.mean(), "best_head": losses.min()}
        terms |= occupancy(jnp.exp(teachers[0][jnp.argmin(epoch_loss)]))
        collections = {"teacher": teacher, "progress": changed, **norms, **prior.updated(variables, both)}
        return losses.mean(), (collections, terms)

    def best_head(variables, batch):
        """Features and logits of the teacher whose head has the lowest training loss."""
        best = jnp.argmin(variables["progress"]["loss"])
        params = jax.tree.map(lambda x: x[best], variables["teacher"])
        return head.apply({"params": params}, scaled(variables.get("norms"), batch))

    def embed(variables, batch):
        return best_head(variables, batch)[0]

    def predict(variables, batch):
        return jax.nn.softmax(best_head(variables, batch)[1] / s.teacher_temperature)

    def criterion(key, variables, infer):
        return float(variables["progress"]["loss"].min())

    def prepare(key: Array, dataset: Dataset, cache: Path) -> Dataset:
        if total < FEW_STEPS:
            warnings.warn(
                f"TEMI takes {total} steps here, and thousands in the paper: its clusters may be far from final; raise "
                "epochs, or take --config=temi_embeddings:quick",
                stacklevel=2,
            )
        image, near = dataset.features["image"], min(s.neighbours, dataset.num_examples - 1)
        stages = ArrayCache(cache, key, image)
        found = stages("image_neighbours", (near,), lambda: nearest_neighbours(image, near))
        return dataset._replace(partners={"image": found})

    settings = dict(optimizer or {})
    settings["warmup_steps"] = settings.get("warmup_steps") or s.warmup_epochs * steps
    total = spec.epochs * steps
    tx = make_optimizer(total_steps=total, **settings)
    phases = (Phase("information", total, (Objective(loss, tx),)),)
    return Method(init, phases, embed, predict, criterion=criterion, prepare=prepare)
