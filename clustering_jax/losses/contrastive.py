"""Contrastive losses over rows (examples) and over columns (clusters), and the balance of clusters.

Every loss is computed over the GLOBAL batch. The result is one float32 scalar (float64 if an input is float64) for any
number of devices. Outside of `jax.shard_map` and `jax.pmap`, also under `jax.jit` with sharded arrays, call the
losses as they are. Inside of them, each device passes its block of rows and `axis_name`, and all devices get the same
value. The gradient is correct

- if `jax.grad` is outside of the `shard_map` or `pmap`, for all inputs;
- if `jax.grad` is inside, for replicated parameters, after `lax.pmean` of the gradients. `pmap`, and `shard_map` with
  ``check_vma=False``, need this mean. The default `shard_map` has already summed over the devices, and the mean
  changes nothing. Never use `psum` for the gradients, and never average the loss over devices yourself.

If `jax.grad` is inside, the gradient with respect to a device's own rows is the correct block under the default
`shard_map`. Under the other two it is this block multiplied by the number of devices.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.losses.blockwise import EXCLUDED, log_sums
from clustering_jax.losses.checks import checked, checked_batch, rescaled
from clustering_jax.losses.dense import dense_log_sums
from clustering_jax.losses.prior import divergence_from_prior
from clustering_jax.losses.symmetric import symmetric_log_sums
from clustering_jax.parallel import axis_index, axis_size, by_backend, pmean, psum
from clustering_jax.typing import Array, Bool, Float

# Number of rows, over both views and all devices, from which "auto" does not use "dense". On one device (two CPU cores,
# d = 128, value and gradient) "dense" and "blockwise" take about the same time with 2,048 rows. With 4,096 rows "dense"
# takes 1.3 times as long and 80 instead of 10 MiB. Other backends have the memory bandwidth and need large products.
_MANY = {"cpu": 2048, "other": 16_384}


def nt_xent(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    temperature: float | Float[Array, ""] = 0.5,
    where: Bool[Array, " n"] | None = None,
    axis_name: str | None = None,
    impl: Literal["auto", "dense", "blockwise", "ring"] = "auto",
    block: int = 512,
) -> Float[Array, ""]:
    """Normalised temperature-scaled cross-entropy: each row must find its positive among the rows of both views.

    It is the mean over the 2n rows z_i of [a; b] of ``-s_ip + log(sum_{j != i} exp s_ij)``. Here
    ``s = z z^T / temperature``, and row p is the positive of row i, the other view of the same example. The positive
    is in the denominator; the row itself is not. The rows are not normalised; for cosine similarity pass them through
    `normalize` first.

    The time grows as n^2. The memory of "dense" grows as n^2 too. The memory of the other implementations grows as n,
    to 80 MiB for 2n = 32,768 and d = 128 on one device. They can be differentiated once, in reverse mode.

    - "dense" stores all similarities. If one device has all rows, it computes the similarities between the views once.
    - "blockwise" visits one block of columns at a time. If one device has all rows, it visits each pair of blocks once.
      Under `jax.jit` with sharded arrays every device keeps its own rows, and both passes gather one block at a time
      if the rows of a block can be divided evenly among the devices (for example with powers of two). Otherwise XLA
      moves rows between the devices first. Called per device, it gathers all rows.
    - "ring", called per device, sends the rows from device to device. No device holds more than its own rows and those
      of one other device.
    - "auto" is "dense" for fewer than 2,048 rows over both views and all devices, 16,384 on a GPU or a TPU. For more
      rows it is "ring" with `axis_name`, and "blockwise" without.

    Args:
      a: [n, d] embeddings of the first view; n >= 2 over all devices.
      b: [n, d] embeddings of the second view. Row i belongs to the same example as row i of `a`.
      temperature: > 0. The smaller it is, the larger the weight of the nearest negatives.
      where: bool [n] examples to use, or None for all. The result is as if the other examples were not in the batch.
      axis_name: mapped axis over which the batch is split, see the module's docstring.
      impl: implementation, see above. The loss is the same for all of them.
      block: largest number of rows in a block. The temporary memory is about [2n / devices, block] similarities.

    Returns:
      Scalar >= 0; log(2n - 1) if all rows are equal; 0 if fewer than two examples are used.

    Raises:
      ValueError: unequal shapes, rank other than 2, a batch of 1, not floating point, temperature <= 0, block < 1, an
        unknown `impl`, "ring" without `axis_name`, or a second derivative unless `impl` is "dense".
      TypeError: raised by JAX in forward mode, unless `impl` is "dense".

    References:
      Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020, eq. 1.
      Li et al., Contrastive Clustering, AAAI 2021, eqs. 2 and 3; the sum leaves out j = i, as in their code.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import nt_xent
      >>> print(f"{nt_xent(jnp.eye(4), jnp.eye(4)):.3f}, {nt_xent(jnp.ones((4, 4)), jnp.ones((4, 4))):.3f}")
      0.594, 1.946
    """
    dtype = jnp.result_type(a, b)
    a, b = checked_batch("nt_xent", axis_name, a, b)
    _check_temperature("nt_xent", temperature)
    if where is not None:
        if jnp.shape(where) != a.shape[:1]:
            raise ValueError(f"nt_xent: needs where [n], got {jnp.shape(where)} for {a.shape}")
        a, b = (jnp.where(where[:, None], x, 0) for x in (a, b))
    positive = jnp.sum(a * b, axis=1) / temperature
    first = axis_index(axis_name) * len(a)
    form = _form(impl, 2 * len(a) * axis_size(axis_name), axis_name, block)
    # With several devices the symmetric form would need sums over the rows of the other devices.
    one_device = axis_name is None and jax.device_count() == 1
    examples = (first + 1 + jnp.arange(len(a))) * (1 if where is None else where)
    if form == "dense":
        sums = dense_log_sums(a, b, examples, temperature, axis_name=axis_name, symmetric=one_device)
    else:
        # Stacked, not concatenated, so that the rows stay on their devices under `jax.jit` too. Half precision is kept
        # until the products, which are float32.
        rows, examples = jnp.stack([a, b], axis=1).reshape(2 * len(a), -1).astype(dtype), jnp.repeat(examples, 2)
        if one_device:
            sums = symmetric_log_sums(rows, examples, temperature, block=block)
        else:
            sums = log_sums(rows, examples, temperature, axis_name=axis_name, ring=form == "ring", block=block)
        sums = sums.reshape(-1, 2).T
    # Equal to `logsumexp(all) - positive`, but its gradient does not suffer from cancellation at low temperatures.
    losses = jax.nn.softplus(sums - positive)
    if where is None:
        return pmean(jnp.mean(losses), axis_name)
    losses = jnp.sum(losses, axis=0, where=where)
    count = len(a) * pmean(jnp.mean(where, dtype=losses.dtype), axis_name)
    return pmean(losses.sum(), axis_name) / (2 * jnp.maximum(count, 1e-30))


def cluster_contrast(
    p: Float[Array, "n k"],
    q: Float[Array, "n k"],
    *,
    temperature: float | Float[Array, ""] = 1.0,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """`nt_xent` over columns: each cluster must find its positive among the clusters of both views.

    The similarity is the cosine between the 2k columns of [p | q]. A column of zeros (an empty cluster) has cosine 0
    with every other column. Devices exchange only sums, [2k, 2k] and [2k], and no rows.

    Args:
      p: [n, k] soft assignments of the first view, >= 0; n >= 2 over all devices, k >= 2.
      q: [n, k] soft assignments of the second view, >= 0.
      temperature: > 0.
      axis_name: mapped axis over which the batch is split, see the module's docstring.

    Returns:
      Scalar >= 0; log(2k - 1) if all columns are equal.

    Raises:
      ValueError: unequal shapes, rank other than 2, a batch or k of 1, not floating point, temperature <= 0.

    References:
      Li et al., Contrastive Clustering, AAAI 2021, eqs. 4 to 6, without the entropy term: see `imbalance`.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import cluster_contrast
      >>> print(f"{cluster_contrast(jnp.eye(2), jnp.eye(2)):.3f}")
      0.551
    """
    p, q = checked_batch("cluster_contrast", axis_name, p, q)
    _check_temperature("cluster_contrast", temperature)
    k = p.shape[1]
    if k < 2:
        raise ValueError(f"cluster_contrast: needs 2 or more clusters, got {p.shape} and {q.shape}")
    similarity = column_cosines(jnp.concatenate([p, q], axis=1), axis_name) / temperature
    return jnp.mean(_contrast(similarity.reshape(2, k, 2, k), jnp.diagonal(similarity, k), 0))


def imbalance(
    p: Float[Array, "n k"], *, log_prior: Float[Array, " k"] | None = None, axis_name: str | None = None
) -> Float[Array, ""]:
    """KL divergence of the mean assignment m from the uniform distribution: ``log k + sum_j m_j log m_j``, in nats.

    With `log_prior` it is the divergence from this prior, ``sum_j m_j (log m_j - log_prior_j)``.

    The mean assignment m is the column sums of `p` divided by their total, so the rows need not sum to 1. The value and
    the gradient are finite: for an empty cluster, m_j log m_j and its derivative count as 0. The entropy of m is
    ``log k - imbalance(p)``. Devices exchange k sums.

    Args:
      p: [n, k] soft assignments, >= 0; n >= 2 over all devices.
      log_prior: [k] logarithms of the expected shares of the clusters, finite; None for equal shares.
      axis_name: mapped axis over which the batch is split, see the module's docstring.

    Returns:
      Scalar from 0 (the clusters have the expected weights) to log k (everything is in one cluster); with a prior, to
      the negative logarithm of its smallest share.

    Raises:
      ValueError: rank other than 2, a batch of 1, not floating point, or a `log_prior` that is not [k].

    References:
      Li et al., Contrastive Clustering, AAAI 2021, H(Y) in eq. 6: this loss is log k - H(Y).

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import imbalance
      >>> print(f"{imbalance(jnp.eye(2)):.3f}, {imbalance(jnp.array([[1.0, 0.0], [1.0, 0.0]])):.3f}")
      0.000, 0.693
    """
    (p,) = checked_batch("imbalance", axis_name, p)
    sums = psum(jnp.sum(p, axis=0), axis_name)
    sums, nonzero = rescaled(sums, jnp.sum(sums))
    mean = sums / jnp.where(nonzero, jnp.sum(sums), 1)
    if log_prior is not None:
        if jnp.shape(log_prior) != mean.shape:
            raise ValueError(f"imbalance: needs log_prior [k], got {jnp.shape(log_prior)} for {p.shape}")
        return divergence_from_prior(mean, jnp.asarray(log_prior, mean.dtype))
    return jnp.sum(mean * jnp.log(jnp.where(mean > 0, mean * p.shape[1], 1)))


def normalize(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Divides each row by its Euclidean norm. Squares of very large or very small entries do not overflow or underflow.

    A row of zeros (no absolute value above 1e-30) is returned as it is, and its gradient passes through unchanged.

    Args:
      x: [n, d] rows; half precision is converted to float32.

    Returns:
      [n, d] rows of norm 1.

    Raises:
      ValueError: rank other than 2, or not floating point.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import normalize
      >>> print(normalize(jnp.array([[0.0, 2.0], [0.0, 0.0]])))
      [[0. 1.]
       [0. 0.]]
    """
    (x,) = checked("normalize", x)
    x, nonzero = rescaled(x, jnp.max(jnp.abs(x), axis=1, keepdims=True, initial=0))
    square = jnp.sum(x * x, axis=1, keepdims=True)
    return x * lax.rsqrt(jnp.where(nonzero, square, 1))


def _contrast(similarity: Array, positive: Array, first: int | Array) -> Array:
    """Cross-entropies of m items among n items in two views.

    Args:
      similarity: [view, m, view, n].
      positive: [m] similarity of the two views of each item.
      first: index of the first of the m items among the n.

    Returns:
      [view, m].
    """
    _, m, _, n = similarity.shape
    # The same index in either view is the item itself or its positive.
    same = (first + jnp.arange(m))[:, None, None] == jnp.arange(n)
    negatives = jax.nn.logsumexp(jnp.where(same, EXCLUDED, similarity), axis=(2, 3))
    # Equal to `logsumexp(all) - positive`, but its gradient does not suffer from cancellation at low temperatures.
    return jax.nn.softplus(negatives - positive)


def column_cosines(x: Array, axis_name: str | None) -> Array:
    """Cosines [c, c] between the columns of the global batch, computed from the sum of the devices' Gram matrices."""
    x, nonzero = rescaled(x, psum(jnp.sum(jnp.abs(x), axis=0), axis_name))
    gram = psum(jnp.matmul(x.T, x, precision="highest"), axis_name)
    scale = lax.rsqrt(jnp.where(nonzero, jnp.diagonal(gram), 1))
    return gram * scale[:, None] * scale


def _check_temperature(name: str, temperature: float | Array) -> None:
    if isinstance(temperature, float | int) and not temperature > 0:
        raise ValueError(f"{name}: needs temperature > 0, got {temperature}")


def _form(impl: str, rows: int, axis_name: str | None, block: int) -> str:
    """The implementation that `nt_xent` uses for this number of rows: "dense", "blockwise" or "ring"."""
    if impl not in ("auto", "dense", "blockwise", "ring"):
        raise ValueError(f"nt_xent: needs impl 'auto', 'dense', 'blockwise' or 'ring', got {impl!r}")
    if block < 1:
        raise ValueError(f"nt_xent: needs block >= 1, got {block}")
    if impl == "ring" and axis_name is None:
        raise ValueError("nt_xent: impl='ring' needs axis_name: call it per device, in jax.shard_map or jax.pmap")
    if impl != "auto":
        return impl
    return "dense" if rows < by_backend(**_MANY) else "blockwise" if axis_name is None else "ring"
