"""CMMC's network, and what a batch of views holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from clustering_jax.losses import normalize
from clustering_jax.nn.mlp import MLP
from clustering_jax.typing import Array


class Outputs(NamedTuple):
    """Of all views in the order of the batch: h [n, 128] of norm 1, q [n, k], reconstructions [n, d_v] (or none)."""

    h: list[Array]
    q: list[Array]
    x: list[Array]


class Network(nn.Module):
    """Autoencoders and the shared heads (paper, figure 2)."""

    num_clusters: int
    hidden: tuple[int, ...]
    latent_dim: int
    feature_dim: int
    dtype: Any

    @nn.compact
    def __call__(self, batch: Mapping[str, Array], *, decode: bool = False) -> Outputs:
        """`Outputs` of the views in `batch`; those the network was not given at first can't be."""
        feature_head = MLP((self.feature_dim,), name="feature_head")
        label_head = MLP((self.num_clusters,), name="label_head")
        h, q, x = [], [], []
        for name in view_names(batch):
            rows = batch[name].astype(jnp.float32)
            z = MLP((*self.hidden, self.latent_dim), self.dtype, name=f"encoder_{name}")(rows)
            if decode:
                back = (*self.hidden[::-1], rows.shape[1])
                x.append(MLP(back, self.dtype, name=f"decoder_{name}")(z).astype(jnp.float32))
            z = z.astype(jnp.float32)
            h.append(normalize(feature_head(z)))
            q.append(nn.softmax(label_head(z)))
        return Outputs(h, q, x)


def view_names(batch: Mapping[str, Any]) -> list[str]:
    """The views of a batch in their order."""
    return sorted((k for k in batch if k.startswith("view")), key=lambda name: int(name.removeprefix("view")))


def presence(batch: Mapping[str, Array]) -> list[Array | None]:
    """Which rows have each view, bool [n]; None is all of them."""
    names = view_names(batch)
    return [batch["mask"][:, int(v.removeprefix("view"))] for v in names] if "mask" in batch else [None] * len(names)


def assignments(outputs: Outputs, present: list[Array | None]) -> Array:
    """The mean of the soft assignments over the views that are present, [n, k]; 1/k for a row that has none."""
    weights = [jnp.ones(len(q)) if w is None else w.astype(q.dtype) for q, w in zip(outputs.q, present, strict=True)]
    total = sum(q * w[:, None] for q, w in zip(outputs.q, weights, strict=True))
    count = sum(weights)[:, None]
    return jnp.where(count > 0, total / jnp.maximum(count, 1), 1 / total.shape[1])


def occupancy(q: Array) -> dict[str, Array]:
    """Occupied clusters and the entropy of the mean assignment, for the log."""
    mean = q.mean(0)
    occupied = jnp.zeros(q.shape[1]).at[q.argmax(1)].set(1.0).sum()
    return {"occupied": occupied, "entropy": -jnp.sum(mean * jnp.log(jnp.where(mean > 0, mean, 1.0)))}
