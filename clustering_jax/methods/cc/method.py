"""CC: Contrastive Clustering (Li, Hu, Liu, Peng, Zhou, Peng; AAAI 2021; arXiv 2009.09687).

Two random views of each image go through one encoder. An instance head contrasts rows (images), a cluster head
contrasts columns (clusters) of the batch; the prediction is the argmax of the cluster head: online, no k-means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from clustering_jax.augment.pipeline import resize, ten_crops, two_views
from clustering_jax.augment.policies import Policy, cc_policy, digits_policy
from clustering_jax.errors import UserError, check_keywords, nearest
from clustering_jax.losses import cluster_contrast, imbalance, normalize, nt_xent
from clustering_jax.method import Method, Objective, Phase, Spec, Variables
from clustering_jax.methods.cc.refine import Model, check_refine, refine_phases
from clustering_jax.methods.cc.weights import load_cc
from clustering_jax.methods.monitor import occupancy
from clustering_jax.methods.prior import prior_of
from clustering_jax.nn.mlp import MLP
from clustering_jax.nn.resnet import ResNet
from clustering_jax.settings.cc import CC
from clustering_jax.settings.validate import settings_of
from clustering_jax.training.optim import make_optimizer


class Network(nn.Module):
    """Encoder, instance head and cluster head (paper, section 3)."""

    backbone: str
    stem: str
    width: int
    num_clusters: int
    instance_dim: int
    dtype: Any
    remat: bool = False

    @nn.compact
    def __call__(self, images, train: bool, *, heads: bool = True):
        """``[..., h, w, c]`` in [0, 1] -> g ``[..., instance_dim]``, z before its normalisation, and c ``[..., k]``.

        Without `heads` the encoder's features h ``[..., d]``.
        """
        settings = {"stem": self.stem, "width": self.width, "dtype": self.dtype, "remat": self.remat}
        h = ResNet(self.backbone, **settings, name="encoder")(images, train)
        if not heads:
            return h
        g = MLP((h.shape[-1], self.instance_dim), name="instance_head")(h)
        return g, nn.softmax(MLP((h.shape[-1], self.num_clusters), name="cluster_head")(h))


def cluster_loss(c_a, c_b, temperature: float, log_prior: jax.Array | None = None) -> tuple[jax.Array, dict]:
    """Paper, eq. 5 and 6: contrast of the clusters and the entropy of both views' mean assignment.

    With `log_prior` [k], the divergence from this prior takes the place of the entropy.
    """
    contrast = cluster_contrast(c_a, c_b, temperature=temperature)
    penalty = imbalance(c_a, log_prior=log_prior) + imbalance(c_b, log_prior=log_prior)
    monitored = occupancy(c_a, (c_a.mean(0) + c_b.mean(0)) / 2)
    return contrast + penalty, {"cluster": contrast, "imbalance": penalty, **monitored}


def build(spec: Spec, *, augment: dict | None = None, optimizer: dict | None = None, **model: Any) -> Method:
    """CC for a run.

    Args:
      spec: the run. A stream "unlabelled" is passed over once before each epoch with the instance loss alone, under
        the same optimiser (STL-10).
      augment: fields of `Natural` or, with the kind "digits", of `Digits`.
      optimizer: fields of `Optimizer`.
      model: fields of `CC`, which documents them and holds their defaults.

    Returns:
      The method.

    Raises:
      UserError: an unknown setting or a value out of range.
    """
    s = settings_of(CC, model, "method 'cc'", group="model")
    check_refine(s)
    prior = prior_of(s.prior, spec.num_clusters)
    image_size, views = s.image_size, _policy(s.image_size, **(augment or {}))
    network = Network(s.backbone, s.stem, s.width, spec.num_clusters, s.instance_dim, jnp.dtype(s.dtype), s.remat)

    def init(key, batch):
        variables = network.init(key, resize(batch["image"], image_size), True)
        return {**_with_average(variables, s.average_decay), **prior.initial(spec.num_clusters)}

    def forward(variables, batch, key):
        """z and c of both views. One pass of the encoder, each view with batch statistics of its own."""
        images = jnp.stack(two_views(key, batch["image"], batch["index"], views), axis=1)
        (g, c), changed = network.apply(_trained(variables), images, True, mutable=["batch_stats"])
        changed = _moved_average({**variables, **changed}, s.average_decay)
        return (normalize(g[:, 0]), normalize(g[:, 1])), (c[:, 0], c[:, 1]), changed

    def instance_only(variables, batch, key):
        z, _, changed = forward(variables, batch, key)
        value = nt_xent(*z, temperature=s.instance_temperature)
        return value, (changed, {"instance": value})

    def both(variables, batch, key):
        z, c, changed = forward(variables, batch, key)
        instance = nt_xent(*z, temperature=s.instance_temperature)
        cluster, terms = cluster_loss(*c, s.cluster_temperature, prior.log(variables))
        changed |= prior.updated(variables, (c[0].mean(0) + c[1].mean(0)) / 2)
        return instance + cluster, (changed, {"instance": instance, **terms})

    def outputs_of(variables, images):
        outputs, changed = network.apply(_trained(variables), images, True, mutable=["batch_stats"])
        return outputs, _moved_average({**variables, **changed}, s.average_decay)

    def infer(variables, images, **options):
        weights = _trained(variables["average"] if s.average_decay else variables)
        return network.apply(weights, images, False, **options)

    def embed(variables, batch):
        return infer(variables, resize(batch["image"], image_size), heads=False)

    def of_plain(variables, batch):
        return infer(variables, resize(batch["image"], image_size))[1]

    def of_crops(variables, batch):
        return infer(variables, ten_crops(batch["image"], image_size))[1].mean(1)

    def load(path, variables):
        loaded = _with_average(load_cc(path, _trained(variables)), s.average_decay)
        return {**loaded, **prior.initial(spec.num_clusters)}

    tx = make_optimizer(total_steps=spec.epochs * sum(spec.steps_per_epoch.values()), **(optimizer or {}))
    phases = _phases(spec, (Objective(both, tx),), (Objective(instance_only, tx),))
    phases += refine_phases(s, Model(outputs_of, embed, of_plain, views, prior), spec.steps_per_epoch["train"])
    return Method(init, phases, embed, of_crops if s.ten_crop else of_plain, load=load, avoid_scan_on_cpu=True)


def _trained(variables: Variables) -> dict[str, Any]:
    return {"params": variables["params"], "batch_stats": variables["batch_stats"]}


def _with_average(variables: Variables, decay: float) -> dict[str, Any]:
    """Adds the average where one is kept: a collection beside the others, so that the loop need not know of it."""
    trained = _trained(variables)
    average = {"steps": jnp.zeros(()), **jax.tree.map(jnp.copy, trained)}
    return {**trained, "average": average} if decay else trained


def _moved_average(variables: Variables, decay: float) -> dict[str, Any]:
    """The collections that a step changes: the running statistics, and the average one step on."""
    changed = {"batch_stats": variables["batch_stats"]}
    if decay:
        average, trained = variables["average"], jax.lax.stop_gradient(_trained(variables))
        steps = average["steps"]
        # Shorter at first, or the initial weights would stay in it for long.
        size = 1 - jnp.minimum(decay, (1 + steps) / (10 + steps))
        moved = optax.incremental_update(trained, {k: average[k] for k in trained}, size)
        changed["average"] = {"steps": steps + 1, **moved}
    return changed


AUGMENTATIONS: dict[str, Callable[..., Policy]] = {"natural": cc_policy, "digits": digits_policy}


def _policy(image_size: int, *, kind: str = "natural", **settings: Any) -> Policy:
    if kind not in AUGMENTATIONS:
        raise UserError(f"augment.kind is '{kind}'{nearest(kind, AUGMENTATIONS)}")
    check_keywords(AUGMENTATIONS[kind], settings, f"augmentation '{kind}'")
    return AUGMENTATIONS[kind](image_size, **settings)


def _phases(spec: Spec, both: tuple, instance_only: tuple) -> tuple[Phase, ...]:
    steps = spec.steps_per_epoch
    if "unlabelled" not in steps:
        return (Phase("contrast", spec.epochs * steps["train"], both),)
    epoch = (
        Phase("instance", steps["unlabelled"], instance_only, stream="unlabelled"),
        Phase("contrast", steps["train"], both),
    )
    return epoch * spec.epochs
