"""CC: Contrastive Clustering (Li, Hu, Liu, Peng, Zhou, Peng; AAAI 2021; arXiv 2009.09687).

Two random views of each image go through one encoder. An instance head contrasts rows (images), a cluster head
contrasts columns (clusters) of the batch; the prediction is the argmax of the cluster head: online, no k-means.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from clustering_jax.data.augment import Policy, cc_policy, digits_policy, resize, two_views
from clustering_jax.errors import UserError, check_keywords, nearest
from clustering_jax.losses import cluster_contrast, imbalance, normalize, nt_xent
from clustering_jax.method import Method, Objective, Phase, Spec
from clustering_jax.methods.cc_weights import load_cc
from clustering_jax.nn.mlp import MLP
from clustering_jax.nn.resnet import DEPTHS, ResNet
from clustering_jax.optim import make_optimizer


def num_features(backbone: str, width: int) -> int:
    """Length of the encoder's output: 512 or, with bottlenecks, 2048 at the published width of 64."""
    return width * (32 if DEPTHS[backbone][1] else 8)


class Network(nn.Module):
    """Encoder, instance head and cluster head (paper, section 3)."""

    backbone: str
    stem: str
    width: int
    num_clusters: int
    instance_dim: int
    dtype: Any

    def setup(self):
        self.encoder = ResNet(self.backbone, stem=self.stem, width=self.width, dtype=self.dtype)
        hidden = num_features(self.backbone, self.width)
        self.instance_head = MLP((hidden, self.instance_dim))
        self.cluster_head = MLP((hidden, self.num_clusters))

    def __call__(self, images, train: bool):
        """``[..., h, w, c]`` in [0, 1] -> g ``[..., instance_dim]``, z before its normalisation; c ``[..., k]``."""
        h = self.encoder(images, train)
        return self.instance_head(h), nn.softmax(self.cluster_head(h))

    def embed(self, images):
        """``[n, h, w, c]`` -> encoder features h ``[n, features]`` in evaluation mode."""
        return self.encoder(images, False)


def cluster_loss(c_a, c_b, temperature: float) -> tuple[jax.Array, dict]:
    """Paper, eq. 5 and 6: contrast of the clusters and the entropy of both views' mean assignment."""
    contrast = cluster_contrast(c_a, c_b, temperature=temperature)
    penalty = imbalance(c_a) + imbalance(c_b)
    mean = (c_a.mean(0) + c_b.mean(0)) / 2
    occupied = jnp.zeros(c_a.shape[1]).at[c_a.argmax(1)].set(1.0).sum()
    terms = {"cluster": contrast, "imbalance": penalty, "occupied": occupied}
    return contrast + penalty, {**terms, "entropy": -jnp.sum(mean * jnp.log(jnp.where(mean > 0, mean, 1.0)))}


def build(
    spec: Spec,
    *,
    backbone: str = "resnet34",
    stem: str = "imagenet",
    width: int = 64,
    image_size: int = 224,
    instance_dim: int = 128,
    instance_temperature: float = 0.5,
    cluster_temperature: float = 1.0,
    dtype: str = "float32",
    augment: dict | None = None,
    optimizer: dict | None = None,
) -> Method:
    """CC for `spec`.

    Args:
      spec: run. A stream ``"unlabelled"``, where there is one, is passed over once before each epoch with the
        instance loss alone, under the same optimiser (STL-10).
      backbone: "resnet18", "resnet34" or "resnet50". stem: "imagenet" (7x7/2 and max-pool) or "small" (3x3).
      width: channels of the first stage; 64 is the published network.
      image_size: pixels, of the views and at prediction.
      dtype: of the encoder's arithmetic; statistics, heads and losses stay in float32.
      augment: ``{"kind": "natural", "strength": 0.5, "blur": False}``, or kind "digits" and settings of
        `digits_policy`.
      optimizer: settings of `make_optimizer`.

    Raises:
      UserError: an unknown setting or a value out of range.
    """
    views = _policy(image_size, **(augment or {}))
    if backbone not in DEPTHS or stem not in ("imagenet", "small"):
        known = f"{', '.join(DEPTHS)}; stems: imagenet, small"
        raise UserError(f"model.backbone is '{backbone}' with stem '{stem}': choose among {known}")
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"model.dtype is '{dtype}': choose float32 or bfloat16")
    network = Network(backbone, stem, width, spec.num_clusters, instance_dim, jnp.dtype(dtype))

    def init(key, batch):
        return network.init(key, resize(batch["image"], image_size), True)

    def forward(variables, batch, key):
        """z and c of both views. One pass of the encoder, each view with batch statistics of its own."""
        images = jnp.stack(two_views(key, batch["image"], batch["index"], views), axis=1)
        (g, c), changed = network.apply(variables, images, True, mutable=["batch_stats"])
        return (normalize(g[:, 0]), normalize(g[:, 1])), (c[:, 0], c[:, 1]), changed

    def instance_only(variables, batch, key):
        z, _, changed = forward(variables, batch, key)
        value = nt_xent(*z, temperature=instance_temperature)
        return value, (changed, {"instance": value})

    def both(variables, batch, key):
        z, c, changed = forward(variables, batch, key)
        instance = nt_xent(*z, temperature=instance_temperature)
        cluster, terms = cluster_loss(*c, cluster_temperature)
        return instance + cluster, (changed, {"instance": instance, **terms})

    def embed(variables, batch):
        return network.apply(variables, resize(batch["image"], image_size), method=Network.embed)

    def predict(variables, batch):
        return network.apply(variables, resize(batch["image"], image_size), False)[1]

    settings = dict(optimizer or {})
    check_keywords(make_optimizer, settings, "optimizer")
    tx = make_optimizer(total_steps=spec.epochs * sum(spec.steps_per_epoch.values()), **settings)
    phases = _phases(spec, (Objective(both, tx),), (Objective(instance_only, tx),))
    return Method(init, phases, embed, predict, load=load_cc, convolves=True)


AUGMENTATIONS = {"natural": cc_policy, "digits": digits_policy}


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
