"""TEMI: Exploring the Limits of Deep Image Clustering using Pretrained Models (Adaloglou, Michels, Kalisch and
Kollmann, BMVC 2023; arXiv 2303.17896).

The features of one encoder are frozen. Several cluster heads learn side by side to give a row and one of its nearest
neighbours the same cluster, by the pointwise mutual information of a student's and a teacher's assignments. The teacher
is a moving average of the student. Pairs that the teachers put into different clusters count less.

A batch holds "image" [n, d] and for each row a random one of its nearest neighbours, "image_partner" [n, d].
"""

from __future__ import annotations

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from clustering_jax.data.base import Dataset
from clustering_jax.errors import UserError, check_keywords
from clustering_jax.kmeans.neighbours import nearest_neighbours
from clustering_jax.losses import normalize
from clustering_jax.method import Method, Objective, Phase, Spec
from clustering_jax.methods.dxmc.cache import Stages
from clustering_jax.methods.feature_spaces import feature_spaces, initial_norms, space_names, updated_norms
from clustering_jax.methods.monitor import occupancy
from clustering_jax.training.optim import make_optimizer
from clustering_jax.typing import Array, Float

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
    log_s: Float[Array, "h n k"], log_t: Float[Array, "h n k"], mean: Float[Array, "h k"], beta: float
) -> Float[Array, "h n"]:
    """Pointwise mutual information of a row and its partner: log sum_c (s_c t_c)^beta / m_c.

    Args:
      log_s: logarithms of the student's assignments of one row of each pair.
      log_t: logarithms of the teacher's assignments of the other row.
      mean: mean assignment m of the teacher.
      beta: 1 is the mutual information; a smaller exponent counters one-hot collapse.
    """
    # A mean that underflows to 0 must not give an infinite loss.
    log_mean = jnp.log(jnp.maximum(mean, jnp.finfo(mean.dtype).tiny))
    return jax.nn.logsumexp(beta * (log_s + log_t) - log_mean[:, None], axis=2)


def head_losses(
    students: tuple[Array, Array], teachers: tuple[Array, Array], mean: Array, beta: float
) -> tuple[Float[Array, " h"], Float[Array, " n"]]:
    """Loss of each head, and the weight of each pair.

    Args:
      students: log-assignments [h, n, k] of the rows and of their partners.
      teachers: the same of the teachers; they count as constants.
      mean: [h, k] mean assignment of each teacher.
      beta: exponent, see `pointwise_information`.
    """
    weight = pair_weights(*map(jnp.exp, teachers))
    crossed = zip(students, reversed(teachers), strict=True)
    information = sum(pointwise_information(log_s, log_t, mean, beta) for log_s, log_t in crossed) / 2
    return -jnp.mean(weight * information, axis=1), weight


def build(
    spec: Spec,
    *,
    heads: int = 16,
    hidden: int = 512,
    width: int = 256,
    neighbours: int = 50,
    beta: float = 0.6,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.1,
    teacher_decay: float = 0.996,
    warmup_epochs: int = 20,
    scale: bool = True,
    optimizer: dict | None = None,
) -> Method:
    """TEMI for `spec`.

    Args:
      spec: the run.
      heads: cluster heads that train side by side; the one with the lowest training loss of the last epoch predicts.
      hidden: width of the first layer.
      width: width of the second layer.
      neighbours: nearest rows by cosine, among which each row's partner is drawn.
      beta: exponent of the pointwise mutual information, in (0, 1].
      student_temperature: temperature of the students' softmax.
      teacher_temperature: temperature of the teachers' softmax.
      teacher_decay: decay of the moving average of the weights that is the teacher, in [0, 1).
      warmup_epochs: epochs in which the learning rate rises linearly from 0.
      scale: multiply the features by one number, so that the mean norm of the rows is sqrt(d); False keeps the
        features as they are.
      optimizer: settings of `make_optimizer`.

    Raises:
      UserError: an unknown setting or a value out of range.
    """
    ranges = {
        "beta": (beta, 0 < beta <= 1, "a number above 0, 1 at most"),
        "teacher_decay": (teacher_decay, 0 <= teacher_decay < 1, "a number from 0, below 1"),
        "warmup_epochs": (warmup_epochs, warmup_epochs >= 0, "0 or more"),
    }
    positive = {"heads": heads, "hidden": hidden, "width": width, "neighbours": neighbours}
    positive |= {"student_temperature": student_temperature, "teacher_temperature": teacher_temperature}
    ranges |= {name: (value, value > 0, "a number above 0") for name, value in positive.items()}
    for name, (value, good, choice) in ranges.items():
        if not good:
            raise UserError(f"model.{name} is {value}: choose {choice}")
    k, steps = spec.num_clusters, spec.steps_per_epoch["train"]
    head = Head(k, hidden, width)
    network = nn.vmap(Head, {"params": 0}, {"params": True}, in_axes=None, axis_size=heads)(k, hidden, width)

    def scaled(norms, batch):
        (space,) = feature_spaces(norms, batch).values()
        return space.scale * space.rows

    def init(key, batch):
        if space_names(batch) != ["image"]:
            raise UserError("temi takes one feature space: choose data.source embeddings, or method turtle")
        params = network.init(key, batch["image"].astype(jnp.float32))["params"]
        progress = {"steps": jnp.zeros(()), "loss": jnp.zeros(heads), "mean": jnp.full((heads, k), 1 / k)}
        norms = {"norms": initial_norms(batch)} if scale else {}
        return {"params": params, "teacher": jax.tree.map(jnp.copy, params), "progress": progress, **norms}

    def log_assignments(params, rows, temperature):
        return jax.nn.log_softmax(network.apply({"params": params}, rows)[1] / temperature)

    def loss(variables, batch, key):
        params, progress = dict(variables["params"]), variables["progress"]
        norms = {"norms": updated_norms(variables["norms"], batch)} if scale else {}
        pair = [scaled(norms.get("norms"), {"image": batch[name]}) for name in ("image", "image_partner")]
        teacher = optax.incremental_update(lax.stop_gradient(params), variables["teacher"], 1 - teacher_decay)
        teachers = tuple(lax.stop_gradient(log_assignments(teacher, rows, teacher_temperature)) for rows in pair)
        both = sum(jnp.exp(log_t).mean(1) for log_t in teachers) / 2
        mean = MEAN_DECAY * progress["mean"] + (1 - MEAN_DECAY) * both
        first_epoch = progress["steps"] < steps
        params |= {n: jnp.where(first_epoch, lax.stop_gradient(x), x) for n, x in params.items() if "last" in n}
        students = tuple(log_assignments(params, rows, student_temperature) for rows in pair)
        losses, weight = head_losses(students, teachers, mean, beta)
        # The mean over the steps of this epoch so far.
        epoch_loss = optax.incremental_update(losses, progress["loss"], 1 / (progress["steps"] % steps + 1))
        changed = {"steps": progress["steps"] + 1, "loss": epoch_loss, "mean": mean}
        terms = {"information": losses.mean(), "pair_weight": weight.mean(), "best_head": losses.min()}
        terms |= occupancy(jnp.exp(teachers[0][jnp.argmin(epoch_loss)]))
        return losses.mean(), ({"teacher": teacher, "progress": changed, **norms}, terms)

    def best_head(variables, batch):
        """Features and logits of the teacher whose head has the lowest training loss."""
        best = jnp.argmin(variables["progress"]["loss"])
        params = jax.tree.map(lambda x: x[best], variables["teacher"])
        return head.apply({"params": params}, scaled(variables.get("norms"), batch))

    def embed(variables, batch):
        return best_head(variables, batch)[0]

    def predict(variables, batch):
        return jax.nn.softmax(best_head(variables, batch)[1] / teacher_temperature)

    def criterion(key, variables, infer):
        return float(variables["progress"]["loss"].min())

    def prepare(key: Array, dataset: Dataset, cache: Path) -> Dataset:
        image, near = dataset.features["image"], min(neighbours, dataset.num_examples - 1)
        found = Stages(cache, key, image)("image_neighbours", (near,), lambda: nearest_neighbours(image, near))
        return dataset._replace(partners={"image": found})

    settings = dict(optimizer or {})
    check_keywords(make_optimizer, settings, "optimizer")
    settings["warmup_steps"] = settings.get("warmup_steps") or warmup_epochs * steps
    tx = make_optimizer(total_steps=spec.epochs * steps, **settings)
    phases = (Phase("information", spec.epochs * steps, (Objective(loss, tx),)),)
    return Method(init, phases, embed, predict, criterion=criterion, prepare=prepare)
