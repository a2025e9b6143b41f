"""The network of DMIM: one trunk and three heads, which all modalities share."""

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

# The authors' code adds it to every standard deviation.
SMALLEST_SIGMA = 1e-7
# Standard deviation of the initial weights of the trunk, as in the authors' code.
TRUNK_STD = 0.02


class Codes(NamedTuple):
    """What the network computes for one modality.

    Args:
      c: soft assignments to clusters, [n, k].
      o: soft assignments to over-clusters, [n, factor * k].
      z: sample of the Gaussian code, or its mean where there is no noise, [n, d].
      h: features of the trunk, which the clustering heads read, [n, d].
    """

    c: Array
    o: Array
    z: Array
    h: Array


class Network(nn.Module):
    """Linear, batch norm, ReLU, twice; then the cluster, over-cluster and Gaussian heads.

    Args:
      num_clusters: width of the cluster head, k.
      over_clusters: width of the over-cluster head.
      head_std: standard deviation of the initial weights of the heads, see `DMIM`.
    """

    num_clusters: int
    over_clusters: int
    head_std: float

    @nn.compact
    def __call__(
        self,
        views: Mapping[int, Float[Array, "n d"]],
        train: bool,
        *,
        masks: Mapping[int, Array | None],
        eps: Mapping[int, Float[Array, "n d"]] | None = None,
    ) -> dict[int, Codes]:
        """Computes the codes of each modality, normalised by its own batch statistics.

        Args:
          views: rows of each modality, by its number.
          train: normalise by the batch and update the running averages, which all modalities share.
          masks: the mask of each modality, bool [n]; None means that all rows have it.
          eps: standard normal noise of z, or None for no noise.

        Returns:
          The codes by the number of the modality.
        """
        (width,) = {rows.shape[1] for rows in views.values()}
        layer, head = (linear(width, std) for std in (TRUNK_STD, self.head_std))
        trunk = [(layer(width, name=f"linear_{i}"), RowNorm(name=f"bn_{i}")) for i in range(2)]
        gaussian = head(2 * width, name="gaussian_head")
        over, cluster = (
            head(size, name=f"{name}_head")
            for name, size in (("over", self.over_clusters), ("cluster", self.num_clusters))
        )
        codes = {}
        for number, h in views.items():
            for dense, norm in trunk:
                h = nn.relu(norm(dense(h), train, where=masks[number]))
            mu, spread = jnp.split(gaussian(h), 2, axis=1)
            sigma = nn.softplus(spread) + SMALLEST_SIGMA
            z = mu if eps is None else mu + sigma * eps[number]
            codes[number] = Codes(nn.softmax(cluster(h)), nn.softmax(over(h)), z, h)
        return codes


def linear(inputs: int, std: float) -> Callable[..., nn.Dense]:
    """Makes linear layers with weights from N(0, std) and biases 0; for std 0 both are PyTorch's uniform ones."""
    if std:
        return partial(nn.Dense, kernel_init=nn.initializers.normal(std))
    uniform = torch_uniform(inputs)
    return partial(nn.Dense, kernel_init=uniform, bias_init=uniform)


def check_widths(views: Mapping[int, Array]) -> None:
    """Checks that all modalities have the same number of columns.

    Raises:
      UserError: they do not.
    """
    widths = [rows.shape[1] for rows in views.values()]
    if len(set(widths)) > 1:
        raise UserError(
            f"views of widths {', '.join(map(str, widths))}: DMIM needs one width; set data.source to 'multiview_pca'"
        )
