"""DMIM's network: one trunk and three heads, which all modalities share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from clustering_jax.errors import UserError
from clustering_jax.nn.mlp import torch_uniform
from clustering_jax.nn.norm import RowNorm
from clustering_jax.typing import Array, Float

# The authors' code adds it to every deviation.
SMALLEST_SIGMA = 1e-7


class Codes(NamedTuple):
    """Of one modality.

    c: [n, k] and o: [n, factor * k], soft assignments to clusters and over-clusters. mu, sigma: [n, d], the posterior
    of the code; z: [n, d], a sample of it, or mu without noise. read: what the clustering heads read, without noise.
    """

    c: Array
    o: Array
    mu: Array
    sigma: Array
    z: Array
    read: Array


class Network(nn.Module):
    """Linear, batch norm, ReLU, twice; then the cluster, over-cluster and Gaussian heads.

    Args:
      num_clusters, over_clusters: widths of the clustering heads.
      heads: what those read: "h", the trunk's features, or "z", the sampled code.
      common_statistics: one set of running averages for all modalities, or one each.
      trunk_std, head_std: of the initial weights, normal, with biases 0; at 0 both are uniform, as PyTorch's are.
    """

    num_clusters: int
    over_clusters: int
    heads: str
    common_statistics: bool
    trunk_std: float
    head_std: float

    @nn.compact
    def __call__(
        self,
        views: Mapping[int, Float[Array, "n d"]],
        train: bool,
        *,
        present: Mapping[int, Array | None],
        eps: Mapping[int, Float[Array, "n d"]] | None = None,
    ) -> dict[int, Codes]:
        """The codes of the modalities in `views` by their numbers, each with batch statistics of its own.

        present: bool [n] a modality, which of its rows count; None is all. eps: noise of z, or None for none.
        """
        (width,) = {rows.shape[1] for rows in views.values()}
        layer, head = (linear(width, std) for std in (self.trunk_std, self.head_std))
        averages = 1 if self.common_statistics else len(views)
        trunk = [(layer(width, name=f"linear_{i}"), RowNorm(averages, name=f"bn_{i}")) for i in range(2)]
        gaussian = head(2 * width, name="gaussian_head")
        over, cluster = (
            head(size, name=f"{name}_head")
            for name, size in (("over", self.over_clusters), ("cluster", self.num_clusters))
        )
        codes = {}
        for number, h in views.items():
            average = 0 if self.common_statistics else number
            for layer, norm in trunk:
                h = nn.relu(norm(layer(h), train, where=present[number], average=average))
            mu, spread = jnp.split(gaussian(h), 2, axis=1)
            sigma = nn.softplus(spread) + SMALLEST_SIGMA
            z = mu if eps is None else mu + sigma * eps[number]
            x, read = (h, h) if self.heads == "h" else (z, mu)
            codes[number] = Codes(nn.softmax(cluster(x)), nn.softmax(over(x)), mu, sigma, z, read)
        return codes


def linear(inputs: int, std: float) -> Callable[..., nn.Dense]:
    """Makes linear layers whose weights are drawn from N(0, std), or at 0 with the biases from U(+-inputs ** -0.5)."""
    if std:
        return partial(nn.Dense, kernel_init=nn.initializers.normal(std))
    uniform = torch_uniform(inputs)
    return partial(nn.Dense, kernel_init=uniform, bias_init=uniform)


def check_widths(views: Mapping[int, Array]) -> None:
    """Raises UserError unless all modalities have the same number of columns."""
    widths = [rows.shape[1] for rows in views.values()]
    if len(set(widths)) > 1:
        raise UserError(
            f"views of widths {', '.join(map(str, widths))}: DMIM needs one width; set data.source to 'multiview_pca'"
        )
