"""CMMC's network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from clustering_jax.losses import normalize
from clustering_jax.methods.views import mixture, stack_masks, view_names
from clustering_jax.nn.mlp import MLP
from clustering_jax.typing import Array


class Outputs(NamedTuple):
    """Outputs of the network for all views, in the order of the batch.

    Args:
      h: high-level features of norm 1, [n, feature_dim].
      q: soft assignments, [n, k].
      x: reconstructions, [n, d_v], or none.
    """

    h: list[Array]
    q: list[Array]
    x: list[Array]


class Network(nn.Module):
    """Autoencoders and the shared heads (paper, figure 2).

    Args:
      num_clusters: number of clusters, k.
      hidden: see `CMMC`.
      latent_dim: see `CMMC`.
      feature_dim: see `CMMC`.
      dtype: arithmetic of the autoencoders.
    """

    num_clusters: int
    hidden: tuple[int, ...]
    latent_dim: int
    feature_dim: int
    dtype: Any

    @nn.compact
    def __call__(self, batch: Mapping[str, Array], *, decode: bool = False) -> Outputs:
        """Computes the outputs of the views in a batch, which must have been in the batch of `init`.

        Args:
          batch: "view0", "view1", ... [n, d_v].
          decode: also compute the reconstructions.

        Returns:
          The outputs of each view.
        """
        feature_head = MLP((self.feature_dim,), name="feature_head")
        label_head = MLP((self.num_clusters,), name="label_head")
        h, q, x = [], [], []
        for name in view_names(batch):
            rows = batch[name].astype(jnp.float32)
            z = MLP((*self.hidden, self.latent_dim), self.dtype, name=f"encoder_{name}")(rows)
            if decode:
                back = (*self.hidden[::-1], rows.shape[1])
                x.append(MLP(back, self.dtype, name=f"decoder_{name}")(z))
            h.append(normalize(feature_head(z)))
            q.append(nn.softmax(label_head(z)))
        return Outputs(h, q, x)


def assignments(outputs: Outputs, masks: list[Array | None]) -> Array:
    """The mean of the soft assignments over the views that a row has, [n, k]; 1/k for a row without any view.

    Args:
      outputs: outputs of the network for all views.
      masks: the mask of each view, see `view_masks`.
    """
    return mixture(jnp.stack(outputs.q, 1), stack_masks(outputs.q[0].shape[0], masks))
