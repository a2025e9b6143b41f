"""Labels inside `jax.jit`: matched to one another, or drawn from soft assignments so that all clusters are alike.

None of it has a gradient.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import optax
from jax import lax

from clustering_jax.typing import Array, Float, Int

# Iterations between two looks at convergence.
_CHECK = 10


def contingency(a: Int[Array, " n"], b: Int[Array, " n"], rows: int, columns: int) -> Float[Array, "rows columns"]:
    """How many examples have label i in `a` and j in `b`.

    Args:
      a: [n] labels in [0, rows); an example with any other label, such as -1, is left out.
      b: [n] labels in [0, columns), likewise.
      rows: number of labels of `a`, above 0. columns: of `b`.

    Returns:
      float32 [rows, columns], exact up to 2^24 examples in an entry.

    Raises:
      ValueError: unequal shapes, rank other than 1, or not integers.
    """
    a, b = jnp.asarray(a), jnp.asarray(b)
    if a.ndim != 1 or a.shape != b.shape or not all(jnp.issubdtype(x.dtype, jnp.integer) for x in (a, b)):
        raise ValueError(f"contingency: needs integers [n] twice, got {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    # Past the end, where updates are dropped: a negative index would count from the end.
    a, b = jnp.where(a < 0, rows, a), jnp.where(b < 0, columns, b)
    return jnp.zeros((rows, columns)).at[a, b].add(1, mode="drop")


def maximum_matching(table: Float[Array, "r c"]) -> Int[Array, " r"]:
    """The one-to-one matching of rows to columns that has the greatest sum; also under `jax.vmap`.

    Args:
      table: [r, c] of finite numbers of any sign, such as a `contingency`.

    Returns:
      int32 [r], the column of each row; all different, but for -1 in the rows left over where r > c.

    Raises:
      ValueError: rank other than 2.

    References:
      Kuhn, The Hungarian method for the assignment problem, Naval Research Logistics Quarterly 1955.
    """
    table = jnp.asarray(table)
    if table.ndim != 2:
        raise ValueError(f"maximum_matching: needs [rows, columns], got {table.shape}")
    rows, columns = optax.assignment.hungarian_algorithm(-table.astype(jnp.result_type(jnp.float32, table)))
    return jnp.full(len(table), -1, jnp.int32).at[rows].set(columns.astype(jnp.int32))


def balanced_labels(
    p: Float[Array, "n k"], *, power: float = 10.0, tol: float = 1e-2, max_iter: int = 75
) -> Int[Array, " n"]:
    """Hard labels near `p` of clusters of nearly equal size, by optimal transport (Sinkhorn and Knopp 1967).

    ``P = p ** power`` is scaled by a factor for each cluster and one for each row until every cluster has mass
    1/k and every row 1/n; the label is a row's largest entry. Scaling, in log space, starts from equal rows and
    ends when the rows' factors c change by ``sum |c / c' - 1| <= tol``, looked at every tenth iteration from the
    first, or after `max_iter`. An entry of 0 counts as the smallest normal number.

    Args:
      p: [n, k] soft assignments, >= 0; the global batch.
      power: > 0; the greater, the more the labels keep to `p` where that is sure.
      tol: >= 0. max_iter: iterations at most, at least 1.

    Returns:
      int32 [n], the first label where several are largest.

    Raises:
      ValueError: rank other than 2, nothing in it, not floating point, power <= 0 or max_iter < 1.

    References:
      Cuturi, Sinkhorn Distances, NeurIPS 2013. Asano et al., Self-labelling via simultaneous clustering and
      representation learning, ICLR 2020. Mao et al., Deep Mutual Information Maximin for Cross-Modal Clustering,
      AAAI 2021: the uniform distribution.
    """
    p = jnp.asarray(p)
    if p.ndim != 2 or not p.size or not jnp.issubdtype(p.dtype, jnp.floating):
        raise ValueError(f"balanced_labels: needs floating point [n, k] above 0, got {p.dtype} of shape {p.shape}")
    if not power > 0 or max_iter < 1:
        raise ValueError(f"balanced_labels: needs power > 0 and max_iter >= 1, got {power} and {max_iter}")
    p = lax.stop_gradient(p.astype(jnp.result_type(jnp.float32, p)))
    logits = power * jnp.log(jnp.maximum(p, jnp.finfo(p.dtype).tiny))
    return jnp.argmax(logits + _cluster_factors(logits, tol, max_iter), axis=1).astype(jnp.int32)


def _cluster_factors(logits: Array, tol: float, max_iter: int) -> Array:
    """Logarithms of the factors of the clusters, [k]."""
    n, k = logits.shape

    def step(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        iteration, change, rows, _ = carry
        clusters = -math.log(k) - jax.nn.logsumexp(logits + rows[:, None], axis=0)
        new = -math.log(n) - jax.nn.logsumexp(logits + clusters, axis=1)
        change = jnp.where(iteration % _CHECK == 0, jnp.sum(jnp.abs(jnp.exp(rows - new) - 1)), change)
        return iteration + 1, change, new, clusters

    start = (jnp.int32(0), jnp.full_like(logits[0, 0], jnp.inf), jnp.full_like(logits[:, 0], -math.log(n)))
    end = lax.while_loop(lambda x: (x[1] > tol) & (x[0] < max_iter), step, (*start, jnp.zeros_like(logits[0])))
    return end[3]
