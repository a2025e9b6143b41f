"""DXMC: Dual-Level Cross-Modal Contrastive Clustering (Zhang, Li and Huang; 2024; arXiv 2409.04561).

Built on TAC (Li et al., Image Clustering with External Guidance, ICML 2024; arXiv 2310.11989). Embeddings of images
and of nouns in one space, CLIP's, are given; each image gets a counterpart in text, made of the nouns near it. Cluster
heads, one a modality, contrast the columns of an image's assignment and its text's neighbour's, and the other way
round; instance heads contrast the rows of both. Images alone are predicted, and the nouns name the clusters.

A batch holds "image" and "text" [n, d] at norm 1 and, of each, a random one of the nearest neighbours,
"image_partner" and "text_partner".
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from clustering_jax.data.base import Dataset, Vocabulary
from clustering_jax.errors import UserError, check_keywords
from clustering_jax.kmeans import kmeans
from clustering_jax.kmeans.neighbours import nearest_neighbours
from clustering_jax.losses import cluster_contrast, consistency, imbalance, normalize, nt_xent
from clustering_jax.method import Method, Objective, Phase, Report, Spec
from clustering_jax.methods.dxmc.cache import Stages
from clustering_jax.methods.dxmc.semantic_space import characteristic_nouns, retrieve, select_nouns, semantic_centers
from clustering_jax.methods.monitor import occupancy
from clustering_jax.methods.views import shared_information
from clustering_jax.nn.mlp import MLP, Linear
from clustering_jax.nn.norm import RowNorm
from clustering_jax.training.optim import make_optimizer
from clustering_jax.typing import Array, Float

MODALITIES = ("text", "image")


class ClusterHead(nn.Module):
    """Linear, batch norm, ReLU, linear, softmax: [n, d] to assignments [n, k]."""

    hidden: int
    num_clusters: int

    @nn.compact
    def __call__(self, x: Float[Array, "n d"], train: bool) -> Float[Array, "n k"]:
        # As in the authors' code: a normal of deviation .02, truncated where nothing is left to cut.
        h = nn.relu(RowNorm(name="bn_1")(Linear(self.hidden, std=0.02, name="linear_0")(x), train))
        return nn.softmax(Linear(self.num_clusters, std=0.02, name="linear_3")(h))


class Network(nn.Module):
    """A cluster head and an instance head for each modality."""

    num_clusters: int
    hidden: int
    instance_dim: int

    def setup(self):
        self.cluster = {m: ClusterHead(self.hidden, self.num_clusters) for m in MODALITIES}
        self.instance = {m: MLP((self.hidden, self.instance_dim)) for m in MODALITIES}

    def __call__(self, batch: dict[str, Array], train: bool) -> tuple[dict[str, Array], dict[str, Array]]:
        """c, assignments by the names in `batch`, each with batch statistics of its own; g, by modality."""
        c = {name: self.cluster[name.removesuffix("_partner")](x, train) for name, x in batch.items()}
        return c, {m: self.instance[m](batch[m]) for m in MODALITIES}

    def assign(self, x: Array, modality: str = "image") -> Array:
        return self.cluster[modality](x, False)

    def features(self, image: Array) -> Array:
        return self.instance["image"](image)


def build(
    spec: Spec,
    *,
    space_seed: int = 0,
    centers: int = 0,
    nouns_per_center: int = 5,
    center_restarts: int = 10,
    retrieval_temperature: float = 0.005,
    neighbours: int = 50,
    hidden: int = 512,
    instance_dim: int = 1024,
    cluster_temperature: float = 0.5,
    instance_temperature: float = 0.05,
    entropy_weight: float = 5.0,
    normalized_instance: bool = False,
    consistent: bool = False,
    optimizer: dict | None = None,
) -> Method:
    """DXMC for `spec`.

    Args:
      spec: run.
      space_seed: of the k-means behind the nouns: as with the authors' files, one space for the runs of all seeds; -1
        is the run's own.
      centers: of the semantic space, M; 0 is a center for 300 images, but at least three for each cluster, which gives
        most of the published numbers. nouns_per_center: kept. center_restarts: of their k-means.
      retrieval_temperature: of the softmax over the kept nouns. neighbours: among which partners are drawn.
      hidden: width of the heads' hidden layers. instance_dim: width of the instance heads' output.
      cluster_temperature, instance_temperature: of the two contrasts. entropy_weight: of the balance of both heads.
      normalized_instance: instance features at norm 1; the authors' code contrasts them as they are.
      consistent: TAC: in place of the contrast of instances, `consistency` of both modalities' assignments.
      optimizer: settings of `make_optimizer`.

    Raises:
      UserError: an unknown setting or a value out of range.
    """
    positive = {
        "nouns_per_center": nouns_per_center,
        "center_restarts": center_restarts,
        "retrieval_temperature": retrieval_temperature,
        "neighbours": neighbours,
        "hidden": hidden,
        "instance_dim": instance_dim,
        "cluster_temperature": cluster_temperature,
        "instance_temperature": instance_temperature,
    }
    for name, value in positive.items():
        if not value > 0:
            raise UserError(f"model.{name} is {value}: choose a number above 0")
    k = spec.num_clusters
    network = Network(k, hidden, instance_dim)

    def init(key, batch):
        image = batch["image"]
        return network.init(key, dict.fromkeys(MODALITIES, image), True)

    def loss(variables, batch, key):
        rows = {name: batch[name] for m in MODALITIES for name in (m, f"{m}_partner")}
        (c, g), changed = network.apply(variables, rows, True, mutable=["batch_stats"])
        g = {m: normalize(x) for m, x in g.items()} if normalized_instance else g
        crossed = [(c["image"], c["text_partner"]), (c["text"], c["image_partner"])]
        cluster = sum(cluster_contrast(p, q, temperature=cluster_temperature) for p, q in crossed)
        if consistent:
            second = {"consistency": consistency(c["text"], c["image"])}
        else:
            second = {"instance": nt_xent(g["text"], g["image"], temperature=instance_temperature)}
        balance = entropy_weight * sum(imbalance(c[m]) for m in MODALITIES)
        terms = {"cluster": cluster, **second, "imbalance": balance}
        return sum(terms.values()), (changed, {**terms, **occupancy(c["image"])})

    def embed(variables, batch):
        return network.apply(variables, batch["image"], method="features")

    def predict(variables, batch):
        return network.apply(variables, batch["image"], method="assign")

    def soft(variables, batch):
        return jnp.stack([network.apply(variables, batch[m], m, method="assign") for m in MODALITIES], axis=1)

    def criterion(key, variables, infer):
        labels = infer(soft, variables).argmax(2)
        return -shared_information(labels, np.ones(labels.shape, bool))

    def prepare(key: Array, dataset: Dataset, cache: Path) -> Dataset:
        if dataset.vocabulary is None:
            raise UserError(f"'{dataset.name}' has no embeddings of nouns: DXMC needs them, see data.nouns")
        count = _center_count(centers, dataset.num_examples, k)
        key = key if space_seed < 0 else jax.random.key(space_seed)
        image, words = dataset.features["image"], dataset.vocabulary
        stages = Stages(cache, key, image, words.embeddings)
        settings = (count, nouns_per_center, center_restarts)
        kept = stages("nouns", settings, lambda: _kept_nouns(key, image, words.embeddings, *settings))
        vocabulary = Vocabulary([words.words[i] for i in kept], words.embeddings[kept])
        text = np.asarray(retrieve(image, vocabulary.embeddings, temperature=retrieval_temperature))
        near = min(neighbours, dataset.num_examples - 1)
        partners = {
            "image": stages("image_neighbours", (near,), lambda: nearest_neighbours(image, near)),
            "text": stages(
                "text_neighbours", (*settings, retrieval_temperature, near), lambda: nearest_neighbours(text, near)
            ),
        }
        return dataset._replace(features={"image": image, "text": text}, vocabulary=vocabulary, partners=partners)

    def report(key: Array, dataset: Dataset, labels: np.ndarray, scored: Dataset) -> Report:
        nouns, words = dataset.vocabulary.embeddings, dataset.vocabulary.words
        names = characteristic_nouns(dataset.features["image"], nouns, labels, k, temperature=retrieval_temperature)
        words_of = [[words[i] for i in row] for row in names]
        image = scored.features["image"]
        if scored.labels is None or len(image) < k:
            return Report({}, words_of)
        both = np.concatenate([image, retrieve(image, nouns, temperature=retrieval_temperature)], 1)
        search = partial(kmeans, key, k=k, restarts=20, spherical=True)
        baselines = {"k-means on image": image, "k-means on [image; text]": both}
        found = {name: np.asarray(search(jnp.asarray(rows)).labels) for name, rows in baselines.items()}
        return Report(found, words_of)

    settings = dict(optimizer or {})
    check_keywords(make_optimizer, settings, "optimizer")
    steps = spec.epochs * spec.steps_per_epoch["train"]
    tx = make_optimizer(total_steps=steps, **settings)
    phases = (Phase("contrast", steps, (Objective(loss, tx),)),)
    return Method(init, phases, embed, predict, criterion=criterion, prepare=prepare, report=report)


def _center_count(centers: int, n: int, k: int) -> int:
    """M, by the authors' rule where it is 0."""
    if not 0 <= centers <= n:
        raise UserError(
            f"model.centers is {centers}: choose between 1 and the number of images, {n}, or 0 for the rule"
        )
    return centers or min(n, max(round(n / 300), 3 * k))


def _kept_nouns(
    key: Array, image: np.ndarray, nouns: np.ndarray, count: int, per_center: int, restarts: int
) -> np.ndarray:
    return select_nouns(semantic_centers(key, jnp.asarray(image), count, restarts=restarts), nouns, per_center)
