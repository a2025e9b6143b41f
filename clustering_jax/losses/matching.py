"""Hard labels inside `jax.jit`: matching two clusterings, and balanced labels from soft assignments.

These functions have no gradient.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import optax
from jax import lax

from clustering_jax.typing import Array, Float, Int

# Number of iterations between two checks of convergence.
_CHECK = 10


def contingency(a: Int[Array, " n"], b: Int[Array, " n"], rows: int, columns: int) -> Float[Array, "rows columns"]:
    """Contingency table: entry (i, j) is the number of examples with label i in `a` and label j in `b`.

    Args:
      a: int [n] labels in [0, rows). An example with any other label, such as -1, is left out.
      b: int [n] labels in [0, columns), likewise.
      rows: number of labels of `a`, above 0.
      columns: number of labels of `b`, above 0.

    Returns:
      float32 [rows, columns]; exact for up to 2^24 examples per entry.

    Raises:
      ValueError: unequal shapes, rank other than 1, or not integers.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import contingency
      >>> print(contingency(jnp.array([0, 0, 1, -1]), jnp.array([1, 1, 0, 0]), 2, 2))
      [[0. 2.]
       [1. 0.]]
    """
    a, b = jnp.asarray(a), jnp.asarray(b)
    if a.ndim != 1 or a.shape != b.shape or not all(jnp.issubdtype(x.dtype, jnp.integer) for x in (a, b)):
        raise ValueError(f"contingency: needs integers [n] twice, got {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    # Negative indices would count from the end. An index past the end drops the update.
    a, b = jnp.where(a < 0, rows, a), jnp.where(b < 0, columns, b)
    return jnp.zeros((rows, columns)).at[a, b].add(1, mode="drop")


def maximum_matching(table: Float[Array, "r c"]) -> Int[Array, " r"]:
    """The one-to-one matching of rows to columns with the largest sum. It also works under `jax.vmap`.

    Args:
      table: [r, c] finite numbers of any sign, such as a `contingency` table.

    Returns:
      int32 [r] column of each row. All columns are different. If r > c, the rows without a column have -1.

    Raises:
      ValueError: rank other than 2.

    References:
      Kuhn, The Hungarian method for the assignment problem, Naval Research Logistics Quarterly 1955.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import maximum_matching
      >>> print(maximum_matching(jnp.array([[5.0, 4.0], [4.0, 1.0]])))
      [1 0]
    """
    table = jnp.asarray(table)
    if table.ndim != 2:
        raise ValueError(f"maximum_matching: needs [rows, columns], got {table.shape}")
    rows, columns = optax.assignment.hungarian_algorithm(-table.astype(jnp.result_type(jnp.float32, table)))
    return jnp.full(len(table), -1, jnp.int32).at[rows].set(columns.astype(jnp.int32))


def balanced_labels(
    p: Float[Array, "n k"],
    *,
    power: float = 10.0,
    tol: float = 1e-2,
    max_iter: int = 75,
    log_prior: Float[Array, " k"] | None = None,
) -> Int[Array, " n"]:
    """Hard labels close to `p` such that all clusters have nearly the same size, by optimal transport.

    The Sinkhorn-Knopp algorithm scales ``P = p ** power`` by one factor for each cluster and one for each row until
    every cluster has mass 1/k, or its share of the prior, and every row has mass 1/n. The label of a row is its largest
    entry. The algorithm works in log space. It stops when the factors c of the rows change by
    ``sum |c / c' - 1| <= tol``, which it checks every tenth iteration, or after `max_iter` iterations. An entry of 0
    counts as the smallest normal number.

    Args:
      p: [n, k] soft assignments of the global batch, >= 0.
      power: > 0. The larger it is, the more the labels follow the confident rows of `p`.
      tol: tolerance, >= 0.
      max_iter: largest number of iterations, at least 1.
      log_prior: [k] logarithms of the shares of the clusters, which sum to 1; None for equal shares.

    Returns:
      int32 [n] labels; the first one in a tie.

    Raises:
      ValueError: rank other than 2, an empty array, not floating point, power <= 0 or max_iter < 1.

    References:
      - Sinkhorn and Knopp, Concerning nonnegative matrices and doubly stochastic matrices, Pacific Journal of
        Mathematics 1967.
      - Cuturi, Sinkhorn Distances, NeurIPS 2013.
      - Asano et al., Self-labelling via simultaneous clustering and representation learning, ICLR 2020.
      - Mao et al., Deep Mutual Information Maximin for Cross-Modal Clustering, AAAI 2021: the uniform distribution.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import balanced_labels
      >>> p = jnp.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.7, 0.3]])
      >>> print(balanced_labels(p))
      [0 0 1 1]
    """
    p = jnp.asarray(p)
    if p.ndim != 2 or not p.size or not jnp.issubdtype(p.dtype, jnp.floating):
        raise ValueError(f"balanced_labels: needs floating point [n, k] above 0, got {p.dtype} of shape {p.shape}")
    if not power > 0 or max_iter < 1:
        raise ValueError(f"balanced_labels: needs power > 0 and max_iter >= 1, got {power} and {max_iter}")
    p = lax.stop_gradient(p.astype(jnp.result_type(jnp.float32, p)))
    logits = power * jnp.log(jnp.maximum(p, jnp.finfo(p.dtype).tiny))
    return jnp.argmax(logits + cluster_factors(logits, tol, max_iter, log_prior), axis=1).astype(jnp.int32)


def cluster_factors(logits: Array, tol: float, max_iter: int, log_prior: Array | None = None) -> Array:
    """Logarithms of the factors of the clusters, [k], see `balanced_labels`.

    Args:
      logits: [n, k] logarithms of the matrix that is scaled.
      tol: tolerance.
      max_iter: largest number of iterations.
      log_prior: [k] logarithms of the masses of the clusters; None for equal ones.
    """
    n, k = logits.shape
    masses = -math.log(k) if log_prior is None else log_prior

    def step(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        iteration, change, rows, _ = carry
        clusters = masses - jax.nn.logsumexp(logits + rows[:, None], axis=0)
        new = -math.log(n) - jax.nn.logsumexp(logits + clusters, axis=1)
        change = jnp.where(iteration % _CHECK == 0, jnp.sum(jnp.abs(jnp.exp(rows - new) - 1)), change)
        return iteration + 1, change, new, clusters

    start = (jnp.int32(0), jnp.full_like(logits[0, 0], jnp.inf), jnp.full_like(logits[:, 0], -math.log(n)))
    end = lax.while_loop(lambda x: (x[1] > tol) & (x[0] < max_iter), step, (*start, jnp.zeros_like(logits[0])))
    return end[3]
