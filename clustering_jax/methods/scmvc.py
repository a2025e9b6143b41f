"""SCMVC: Self-Weighted Contrastive Fusion for Deep Multi-View Clustering (Wu, Zheng, Ren, He, Pu, Huang, Hao and He,
IEEE Transactions on Multimedia 2024).

Each view has an autoencoder with low-level features z. The z of all views are fused to features H, and one linear layer
that all views share gives high-level features r of each view. H is contrasted with the r of each view, and a view
whose r lie far from H counts less. Reconstruction acts on z alone, so the two aims have different spaces. k-means on H
makes the clusters.

Training has three stages: reconstruction, contrast, and one step that keeps the centres of k-means. A row is assigned
to the nearest centre.

A batch holds "view0", "view1", ... [n, d_v] and, where some are missing, "mask" bool [n, views]. The losses count only
the views that a row has, and zeros take the place of the z of a missing view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from clustering_jax.kmeans import kmeans
from clustering_jax.losses import decoupled_contrast, discrepancy_weights, normalize
from clustering_jax.method import Method, Objective, Phase, Spec
from clustering_jax.methods.cmmc.method import reconstruction_errors, reconstruction_loss
from clustering_jax.methods.feature_spaces import training_rows
from clustering_jax.methods.kmeans import squared_distances
from clustering_jax.methods.monitor import occupancy
from clustering_jax.methods.view_agreement import agreement, view_folds
from clustering_jax.methods.views import fill_missing, stack_masks, view_masks, view_names
from clustering_jax.nn.mlp import MLP
from clustering_jax.settings.scmvc import SCMVC
from clustering_jax.settings.validate import settings_of
from clustering_jax.training.optim import make_optimizer
from clustering_jax.typing import Array


class Outputs(NamedTuple):
    """Outputs of the network.

    Args:
      fused: features H of all views together, of norm 1, [n, feature_dim].
      r: high-level features of each view in the batch, of norm 1, [n, feature_dim].
      x: reconstructions of each view in the batch, [n, d_v], or none.
    """

    fused: Array
    r: list[Array]
    x: list[Array]


class Network(nn.Module):
    """Autoencoders, the shared layer and the fusion.

    Args:
      settings: see `SCMVC`.
    """

    settings: SCMVC

    @nn.compact
    def __call__(self, batch: Mapping[str, Array], names: Sequence[str], *, decode: bool = False) -> Outputs:
        """Computes the outputs for a batch.

        Args:
          batch: some of the views [n, d_v], and "mask" where rows lack views.
          names: names of all views of the model. A view that the batch lacks is missing in all rows.
          decode: also compute the reconstructions.
        """
        s, r, x, low = self.settings, [], [], dict[str, Array]()
        shared = MLP((s.feature_dim,), name="shared_head")
        for name, mask in zip(view_names(batch), view_masks(batch), strict=True):
            rows = batch[name].astype(jnp.float32)
            z = MLP((*s.hidden, s.latent_dim), name=f"encoder_{name}")(rows)
            if decode:
                x.append(MLP((*s.hidden[::-1], rows.shape[1]), name=f"decoder_{name}")(z))
            r.append(normalize(shared(z)))
            low[name] = fill_missing(z, mask)
        zeros = jnp.zeros((r[0].shape[0], s.latent_dim))
        joined = jnp.concatenate([low.get(name, zeros) for name in names], axis=1)
        return Outputs(normalize(MLP((s.fusion_dim, s.feature_dim), name="fusion")(joined)), r, x)


def reconstruction(outputs: Outputs, batch: Mapping[str, Array]) -> Array:
    """The mean squared error over the entries of each view, on the rows that have it, summed over the views."""
    return reconstruction_loss(reconstruction_errors(outputs.x, batch), view_masks(batch))


def contrast_loss(outputs: Outputs, masks: list[Array | None], temperature: float) -> tuple[Array, Array]:
    """Contrast of H with the features of each view, by the weights of the views.

    Args:
      outputs: outputs of the network for all views.
      masks: the mask of each view, see `view_masks`.
      temperature: see `SCMVC`.

    Returns:
      The loss, and the weights of the views, [views].
    """
    where = stack_masks(len(outputs.fused), masks)
    weights = discrepancy_weights(outputs.fused, outputs.r, where=where)
    each = [
        decoupled_contrast(outputs.fused, r, temperature=temperature, where=mask)
        for r, mask in zip(outputs.r, masks, strict=True)
    ]
    return jnp.sum(weights * jnp.stack(each)), weights


def build(spec: Spec, *, optimizer: dict | None = None, **model: Any) -> Method:
    """SCMVC for a run.

    Args:
      spec: the run; `spec.epochs` is the length of the contrastive stage.
      optimizer: fields of `Optimizer`, for the first two stages.
      model: fields of `SCMVC`, which documents them and holds their defaults.

    Returns:
      The method.

    Raises:
      UserError: an unknown setting or a value out of range.
    """
    s, k = settings_of(SCMVC, model, "method 'scmvc'", group="model"), spec.num_clusters
    network = Network(s)

    def forward(variables, batch, decode=False):
        return network.apply({"params": variables["params"]}, batch, [*_widths(variables)], decode=decode)

    @cache  # The views are the same for every seed.
    def folds_of(infer, *widths):
        return view_folds(*training_rows(dict(widths), infer))

    def init(key, batch):
        params = network.init(key, batch, view_names(batch), decode=True)["params"]
        return {"params": params, "clusters": {"centers": jnp.zeros((k, s.feature_dim)), "spread": jnp.ones(())}}

    def reconstruct(variables, batch, key):
        value = reconstruction(forward(variables, batch, decode=True), batch)
        return value, ({}, {"reconstruction": value})

    def contrast(variables, batch, key):
        outputs = forward(variables, batch, decode=True)
        value, weights = contrast_loss(outputs, view_masks(batch), s.temperature)
        terms = {"contrast": value, "reconstruction": reconstruction(outputs, batch)}
        return sum(terms.values()), ({}, {**terms, "smallest_weight": weights.min()})

    def targets(key, variables, infer):
        fused = infer(embed, variables)
        labels = kmeans(key, jnp.asarray(fused), k, restarts=s.kmeans_restarts).labels
        return {"label": np.asarray(labels), "fused": fused}

    def keep_centers(variables, batch, key):
        member, fused = jax.nn.one_hot(batch["label"], k), batch["fused"]
        count = member.sum(0)[:, None]
        centers = jnp.where(count > 0, member.T @ fused / jnp.maximum(count, 1), fused.mean(0))
        spread = jnp.mean(jnp.min(squared_distances(fused, centers), 1))
        return jnp.zeros(()), ({"clusters": {"centers": centers, "spread": spread}}, occupancy(member))

    def embed(variables, batch):
        return forward(variables, batch).fused

    def predict(variables, batch):
        """Shares that fall with the squared distance, in units of the mean squared distance from the own centre."""
        fused, clusters = embed(variables, batch), variables["clusters"]
        squares = squared_distances(fused, clusters["centers"])
        q = jax.nn.softmax(-squares / jnp.maximum(clusters["spread"], 1e-12))
        has_view = stack_masks(fused.shape[0], view_masks(batch)).any(1)
        return jnp.where(has_view[:, None], q, 1 / k)

    def criterion(key, variables, infer):
        return -agreement(folds_of(infer, *_widths(variables).items()), infer(predict, variables).argmax(1), k)

    steps = spec.steps_per_epoch["train"]
    lengths = (s.reconstruction_epochs * steps, spec.epochs * steps)
    tx = make_optimizer(total_steps=sum(lengths), **(optimizer or {}))
    # The moments and the weight decay of `tx` would change the network in the step that keeps the centres.
    still = Objective(keep_centers, optax.set_to_zero())
    phases = (
        Phase("reconstruct", lengths[0], (Objective(reconstruct, tx),)),
        Phase("contrast", lengths[1], (Objective(contrast, tx),)),
        Phase("k-means", 1, (still,), targets=targets, whole=True),
    )
    return Method(init, tuple(p for p in phases if p.num_steps), embed, predict, criterion=criterion)


def _widths(variables: Mapping[str, Any]) -> dict[str, int]:
    """The columns of each view of the model, by its name."""
    params = variables["params"]
    names = view_names({name.removeprefix("encoder_"): None for name in params})
    return {name: params[f"encoder_{name}"]["linear_0"]["kernel"].shape[0] for name in names}
