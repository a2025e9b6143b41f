"""DXMC: Dual-Level Cross-Modal Contrastive Clustering (Zhang, Li and Huang; 2024; arXiv 2409.04561).

It is built on TAC (Li et al., Image Clustering with External Guidance, ICML 2024; arXiv 2310.11989). The inputs are
embeddings of images and of nouns in one space, that of CLIP. Each image gets a counterpart in text, made of the nouns
near it. The cluster heads, one for each modality, contrast the columns of the assignments of an image and of a
neighbour of its text, and the other way round. The instance heads contrast the rows of both modalities. The prediction
needs the image only, and the nouns name the clusters.

A batch holds "image" and "text" [n, d] with norm 1, and a random nearest neighbour of each, "image_partner" and
"text_partner".
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from clustering_jax.data.base import Dataset, Vocabulary
from clustering_jax.errors import UserError
from clustering_jax.kmeans import kmeans
from clustering_jax.kmeans.neighbours import nearest_neighbours
from clustering_jax.losses import cluster_contrast, consistency, imbalance, normalize, nt_xent
from clustering_jax.method import Method, Objective, Phase, Report, Spec
from clustering_jax.methods.cache import ArrayCache
from clustering_jax.methods.dxmc.semantic_space import characteristic_nouns, retrieve, select_nouns, semantic_centers
from clustering_jax.methods.monitor import occupancy
from clustering_jax.methods.prior import prior_of
from clustering_jax.methods.views import mean_pairwise_mi
from clustering_jax.nn.mlp import MLP, Linear
from clustering_jax.nn.norm import RowNorm
from clustering_jax.settings.dxmc import DXMC, OPTIMIZER
from clustering_jax.settings.validate import settings_of
from clustering_jax.training.optim import make_optimizer
from clustering_jax.typing import Array, Float

MODALITIES = ("text", "image")


class ClusterHead(nn.Module):
    """Linear, batch norm, ReLU, linear, softmax: [n, d] to assignments [n, k].

    Args:
      hidden: width of the hidden layer.
      num_clusters: number of clusters, k.
    """

    hidden: int
    num_clusters: int

    @nn.compact
    def __call__(self, x: Float[Array, "n d"], train: bool) -> Float[Array, "n k"]:
        # As in the authors' code: normal weights with standard deviation .02, truncated so far out that nothing is cut.
        h = nn.relu(RowNorm(name="bn_1")(Linear(self.hidden, std=0.02, name="linear_0")(x), train))
        return nn.softmax(Linear(self.num_clusters, std=0.02, name="linear_3")(h))


class Network(nn.Module):
    """A cluster head and an instance head for each modality.

    Args:
      num_clusters: number of clusters, k.
      hidden: width of the hidden layers.
      instance_dim: width of the output of the instance heads.
    """

    num_clusters: int
    hidden: int
    instance_dim: int

    def setup(self):
        self.cluster = {m: ClusterHead(self.hidden, self.num_clusters) for m in MODALITIES}
        self.instance = {m: MLP((self.hidden, self.instance_dim)) for m in MODALITIES}

    def __call__(self, batch: dict[str, Array], train: bool) -> tuple[dict[str, Array], dict[str, Array]]:
        """Computes the outputs of the heads.

        Args:
          batch: "image", "text" and their partners, [n, d].
          train: normalise by the statistics of the batch.

        Returns:
          Assignments by the names in `batch`, each normalised by its own batch statistics; instance features by
          modality.
        """
        c = {name: self.cluster[name.removesuffix("_partner")](x, train) for name, x in batch.items()}
        return c, {m: self.instance[m](batch[m]) for m in MODALITIES}

    def assign(self, x: Array, modality: str = "image") -> Array:
        """Soft assignments of rows of one modality, [n, k]."""
        return self.cluster[modality](x, False)

    def features(self, image: Array) -> Array:
        """Instance features of images, [n, instance_dim]."""
        return self.instance["image"](image)


def build(spec: Spec, *, optimizer: dict | None = None, **model: Any) -> Method:
    """DXMC for a run.

    Args:
      spec: the run.
      optimizer: fields of `Optimizer`; the learning rate is 1e-3 and `b2` is 0.99 unless given.
      model: fields of `DXMC`, which documents them and holds their defaults.

    Returns:
      The method.

    Raises:
      UserError: an unknown setting or a value out of range.
    """
    s = settings_of(DXMC, model, "method 'dxmc'", group="model")
    k, prior = spec.num_clusters, prior_of(s.prior, spec.num_clusters)
    network = Network(k, s.hidden, s.instance_dim)

    def init(key, batch):
        image = batch["image"]
        return {**network.init(key, dict.fromkeys(MODALITIES, image), True), **prior.initial(k)}

    def loss(variables, batch, key):
        rows = {name: batch[name] for m in MODALITIES for name in (m, f"{m}_partner")}
        (c, g), changed = network.apply(variables, rows, True, mutable=["batch_stats"])
        g = {m: normalize(x) for m, x in g.items()} if s.normalized_instance else g
        crossed = [(c["image"], c["text_partner"]), (c["text"], c["image_partner"])]
        cluster = sum(cluster_contrast(p, q, temperature=s.cluster_temperature) for p, q in crossed)
        if s.consistent:
            second = {"consistency": consistency(c["text"], c["image"])}
        else:
            second = {"instance": nt_xent(g["text"], g["image"], temperature=s.instance_temperature)}
        balance = s.entropy_weight * sum(imbalance(c[m], log_prior=prior.log(variables)) for m in MODALITIES)
        changed |= prior.updated(variables, sum(c[m].mean(0) for m in MODALITIES) / len(MODALITIES))
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
        return -mean_pairwise_mi(labels, np.ones(labels.shape, bool))

    def prepare(key: Array, dataset: Dataset, directory: Path) -> Dataset:
        image, words = dataset.features["image"], dataset.vocabulary
        if s.words == "images":
            words = Vocabulary(dataset.ids, image)
        if words is None:
            raise UserError(
                f"'{dataset.name}' has no embeddings of nouns: name their file in data.nouns, or cluster without names "
                "by --config=turtle_embeddings or --config.model.words=images"
            )
        count = _center_count(s.centers, dataset.num_examples, k)
        key = key if s.space_seed < 0 else jax.random.key(s.space_seed)
        cached = ArrayCache(directory, key, image, words.embeddings)
        settings = (count, s.nouns_per_center, s.center_restarts)
        kept = cached("nouns", settings, lambda: _kept_nouns(key, image, words.embeddings, *settings))
        vocabulary = Vocabulary([words.words[i] for i in kept], words.embeddings[kept])
        text = np.asarray(retrieve(image, vocabulary.embeddings, temperature=s.retrieval_temperature))
        near = min(s.neighbours, dataset.num_examples - 1)
        partners = {
            "image": cached("image_neighbours", (near,), lambda: nearest_neighbours(jnp.asarray(image), near)),
            "text": cached(
                "text_neighbours",
                (*settings, s.retrieval_temperature, near),
                lambda: nearest_neighbours(jnp.asarray(text), near),
            ),
        }
        return dataset._replace(features={"image": image, "text": text}, vocabulary=vocabulary, partners=partners)

    def report(key: Array, dataset: Dataset, labels: np.ndarray, scored: Dataset) -> Report:
        assert dataset.vocabulary is not None  # `prepare` made it
        nouns, words = jnp.asarray(dataset.vocabulary.embeddings), dataset.vocabulary.words
        names = characteristic_nouns(
            jnp.asarray(dataset.features["image"]), nouns, labels, k, temperature=s.retrieval_temperature
        )
        words_of = [[words[i] for i in row] for row in names]
        image = scored.features["image"]
        if scored.labels is None or len(image) < k:
            return Report({}, words_of)
        both = np.concatenate([image, retrieve(image, nouns, temperature=s.retrieval_temperature)], 1)
        search = partial(kmeans, key, k=k, restarts=20, spherical=True)
        baselines = {"k-means on image": image, "k-means on [image; text]": both}
        labels_of = {name: np.asarray(search(jnp.asarray(rows)).labels) for name, rows in baselines.items()}
        return Report(labels_of, words_of)

    steps = spec.epochs * spec.steps_per_epoch["train"]
    tx = make_optimizer(total_steps=steps, **{**OPTIMIZER._asdict(), **(optimizer or {})})
    phases = (Phase("contrast", steps, (Objective(loss, tx),)),)
    return Method(init, phases, embed, predict, criterion=criterion, prepare=prepare, report=report)


def _center_count(centers: int, n: int, k: int) -> int:
    """The number of centres M; 0 is replaced by the authors' rule."""
    if not 0 <= centers <= n:
        raise UserError(
            f"model.centers is {centers}: choose between 1 and the number of images, {n}, or 0 for the rule"
        )
    return centers or min(n, max(round(n / 300), 3 * k))


def _kept_nouns(
    key: Array, image: np.ndarray, nouns: np.ndarray, count: int, per_center: int, restarts: int
) -> np.ndarray:
    return select_nouns(
        semantic_centers(key, jnp.asarray(image), count, restarts=restarts), jnp.asarray(nouns), per_center
    )
