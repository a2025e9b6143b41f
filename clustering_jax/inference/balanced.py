"""Strictly balanced assignment: clusters of exactly the sizes that the prior expects.

The sizes are a property of a whole set of rows. So a run balances the rows that it scores, and `predict`, which reads
new rows batch by batch, does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clustering_jax.errors import UserError
from clustering_jax.losses.matching import cluster_factors
from clustering_jax.methods.prior import prior_of

# Exponent of the assignments: with a large one, Sinkhorn's plan is near the best assignment of these sizes.
MAX_POWER = 10.0
_RANGE = 50.0
_TOLERANCE, _MAX_ITER = 1e-3, 1000


def log_shares(config: Mapping[str, Any]) -> np.ndarray | None:
    """Logarithms of the expected shares of a run with the setting `balanced`, [k]; None for equal shares.

    Args:
      config: the config of a run, with the number of clusters.

    Raises:
      UserError: the shares are learnt.
    """
    prior = prior_of(config["model"].get("prior", "uniform"), config["num_clusters"], none=True)
    if prior.kind == "learnt":
        raise UserError("balanced=True needs sizes: set model.prior to uniform, or to one number for each cluster")
    return prior.log_shares


def sizes(n: int, k: int, log_prior: np.ndarray | None = None) -> np.ndarray:
    """The sizes of the clusters, int [k] with the sum n: the shares of n, rounded by the largest remainders.

    Args:
      n: number of rows.
      k: number of clusters.
      log_prior: [k] logarithms of the shares; None for equal shares.
    """
    exact = n * (np.full(k, 1 / k) if log_prior is None else np.exp(np.asarray(log_prior, np.float64)))
    result = np.floor(exact + 1e-6).astype(int)
    result[np.argsort(result - exact, kind="stable")[: n - result.sum()]] += 1
    return result


def balanced(probabilities: np.ndarray, log_prior: np.ndarray | None = None) -> np.ndarray:
    """Soft assignments whose largest entries give each cluster exactly its size, see `sizes`.

    The Sinkhorn-Knopp algorithm finds one factor for each cluster. Each row is multiplied by them and divided by its
    sum. The sizes then nearly hold. The rows that lose the least go from clusters that are too large to clusters that
    are too small: the two entries of such a row are exchanged.

    Args:
      probabilities: soft assignments [n, k], n >= 1.
      log_prior: [k] logarithms of the shares of the clusters; None for equal shares.

    Returns:
      [n, k], rows that sum to 1.

    References:
      Cuturi, Sinkhorn Distances, NeurIPS 2013; Asano et al., Self-labelling, ICLR 2020.
    """
    log_p = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)).astype(np.float32)
    n, k = log_p.shape
    wanted = sizes(n, k, log_prior)
    masses = jnp.log(jnp.maximum(wanted / len(log_p), 1e-9))
    # More than this, and the algorithm does not converge on rows that are certain of their clusters.
    power = min(MAX_POWER, _RANGE / max(float(np.mean(np.ptp(log_p, axis=1))), 1e-9))
    factors = np.asarray(cluster_factors(power * jnp.asarray(log_p), _TOLERANCE, _MAX_ITER, masses))
    scores = log_p + factors / power
    clusters = _with_sizes(scores, wanted)
    result = np.array(jax.nn.softmax(jnp.asarray(scores), axis=1))
    rows, likeliest = np.arange(len(result)), result.argmax(1)
    result[rows, clusters], result[rows, likeliest] = result[rows, likeliest], result[rows, clusters]
    tied = rows[result.argmax(1) != clusters]
    result[tied, clusters[tied]] = np.nextafter(result[tied].max(1), np.float32(2))
    return result.astype(probabilities.dtype)


def _with_sizes(scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The largest entry of each row, changed where it must be so that the clusters have the sizes `wanted`."""
    clusters = scores.argmax(1)
    while (room := wanted - np.bincount(clusters, minlength=len(wanted))).any():
        large, small = np.flatnonzero(room < 0), np.flatnonzero(room > 0)
        rows = np.flatnonzero(np.isin(clusters, large))
        target = small[scores[rows][:, small].argmax(1)]
        loss = scores[rows, clusters[rows]] - scores[rows, target]
        for i in np.argsort(loss, kind="stable"):
            source, to = clusters[rows[i]], target[i]
            if room[source] < 0 < room[to]:
                clusters[rows[i]] = to
                room[source] += 1
                room[to] -= 1
    return clusters
