"""CMMC's network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from clustering_jax.losses import normalize
from clustering_jax.methods.views import mixture, stack_masks, view_names
from clustering_jax.nn.mlp import MLP
from clustering_jax.nn.square import SquareDecoder, SquareEncoder
from clustering_jax.typing import Array

# Largest noise on the low-level features, as in the authors' code of BDCL.
NOISE = 1e-3


class Outputs(NamedTuple):
    """Outputs of the network for all views, in the order of the batch.

    Args:
      h: high-level features of norm 1, [n, feature_dim].
      q: soft assignments, [n, k].
      x: reconstructions, [n, d_v], or none.
      z: low-level features, [n, latent_dim].
      noisy: soft assignments of low-level features with noise, [n, k], or none.
    """

    h: list[Array]
    q: list[Array]
    x: list[Array]
    z: Sequence[Array] = ()
    noisy: Sequence[Array] = ()


class Network(nn.Module):
    """Autoencoders and the shared heads (paper, figure 2).

    Args:
      num_clusters: number of clusters, k.
      hidden: see `CMMC`.
      latent_dim: see `CMMC`.
      feature_dim: see `CMMC`.
      dtype: arithmetic of the autoencoders.
      body: see `CMMC`.
    """

    num_clusters: int
    hidden: tuple[int, ...]
    latent_dim: int
    feature_dim: int
    dtype: Any
    body: str = "mlp"

    @nn.compact
    def __call__(self, batch: Mapping[str, Array], *, decode: bool = False, noise: Array | None = None) -> Outputs:
        """Computes the outputs of the views in a batch, which must have been in the batch of `init`.

        Args:
          batch: "view0", "view1", ... [n, d_v].
          decode: also compute the reconstructions.
          noise: random key for `noisy`, which then needs "index" [n] in the batch; None computes none.

        Returns:
          The outputs of each view.
        """
        feature_head = MLP((self.feature_dim,), name="feature_head")
        label_head = MLP((self.num_clusters,), name="label_head")
        h, q, x, low, noisy = [], [], [], [], []
        for view, name in enumerate(view_names(batch)):
            rows = batch[name].astype(jnp.float32)
            z = self._encoder(name)(rows)
            if decode:
                x.append(self._decoder(name, rows.shape[1])(z))
            low.append(z)
            h.append(normalize(feature_head(z)))
            q.append(nn.softmax(label_head(z)))
            if noise is not None:
                more = _uniform(jax.random.fold_in(noise, view), batch["index"], self.latent_dim)
                noisy.append(nn.softmax(label_head(z + NOISE * more)))
        return Outputs(h, q, x, low, noisy)

    def _encoder(self, view: str) -> nn.Module:
        if self.body == "conv":
            return SquareEncoder(self.latent_dim, self.dtype, name=f"encoder_{view}")
        return MLP((*self.hidden, self.latent_dim), self.dtype, name=f"encoder_{view}")

    def _decoder(self, view: str, width: int) -> nn.Module:
        if self.body == "conv":
            return SquareDecoder(width, self.dtype, name=f"decoder_{view}")
        return MLP((*self.hidden[::-1], width), self.dtype, name=f"decoder_{view}")


def _uniform(key: Array, index: Array, width: int) -> Array:
    """Numbers in [0, 1) that depend only on the key and on the index of a row, [n, width]."""
    return jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (width,)))(index)


def assignments(outputs: Outputs, masks: list[Array | None], weights: Array | None = None) -> Array:
    """The mean of the soft assignments over the views that a row has, [n, k]; 1/k for a row without any view.

    Args:
      outputs: outputs of the network for all views.
      masks: the mask of each view, see `view_masks`.
      weights: weight of each view in the mean, [views]; None for equal weights.
    """
    return mixture(jnp.stack(outputs.q, 1), stack_masks(outputs.q[0].shape[0], masks), weights)
