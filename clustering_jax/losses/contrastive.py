"""Contrastive losses over rows (examples) and over columns (clusters), and the balance term beside them.

Every loss is that of the GLOBAL batch: one float32 scalar (float64 if an input is), whatever the number of
devices. Called plainly or under `jax.jit` with sharded arrays there is nothing to do. Called per device, in
`jax.shard_map` or `jax.pmap`, each device passes its block of rows and `axis_name`, and gets the same value.
The gradient is right

- when `jax.grad` stands outside the `shard_map` or `pmap`, for whatever is differentiated;
- when `jax.grad` stands inside, for replicated parameters, after `lax.pmean` of the gradients. `pmap`, and
  `shard_map` with ``check_vma=False``, need that mean; the default `shard_map` has summed the devices' parts
  already and the mean changes nothing. Never `psum` them, and never average a per-device loss yourself.

Inside, the gradient for a device's own rows is the right block under the default `shard_map`; under the other
two it is that block times the number of devices.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.losses.blockwise import EXCLUDED, log_sums
from clustering_jax.losses.dense import dense_log_sums
from clustering_jax.losses.symmetric import symmetric_log_sums
from clustering_jax.parallel import axis_index, axis_size, pmean, psum
from clustering_jax.typing import Array, Bool, Float

# Rows and columns smaller than this count as zero: their gradient, near 1 / size, would overflow float32.
_NEGLIGIBLE = 1e-30
# Rows, of both views and all devices, from which "auto" leaves the dense form. On one device (two CPU cores, d = 128,
# value and gradient) both forms take nearly the same time there, dense 1.3 times as long at 4,096 (80 against 10 MiB).
_MANY = 2048


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
    """Normalised-temperature cross-entropy: each row must find its other view among the rows of both.

    The mean over the 2n rows z_i of [a; b] of ``-s_ip + log(sum_{j != i} exp s_ij)``, where
    ``s = z z^T / temperature`` and p is the other view of i: the positive is in the denominator, the row
    itself is not. Rows are taken as they are; for cosine similarity pass them through `normalize`. Time grows as
    n^2. So does the memory of "dense"; that of the others grows as n, to 80 MiB for 2n = 32,768 and d = 128 on one
    device. They can be differentiated once, in reverse mode.

    - "dense" keeps all similarities; one device that has all rows computes those between the views once.
    - "blockwise" visits the columns a block at a time, one device that has all rows each pair of blocks, once for
      both. Under `jax.jit` with sharded arrays every device keeps its own rows and in both passes gathers each block
      in turn, if the devices share the rows of a block evenly, as with powers of two; otherwise XLA moves rows between
      them first. Called per device it gathers all rows.
    - "ring", called per device, passes the rows on from device to device: none ever holds more than its own and
      those of one other.
    - "auto" is "dense" below 2,048 rows of both views and all devices; from there "ring" with `axis_name`, else
      "blockwise".

    Args:
      a: [n, d] embeddings of the first view; n >= 2 over all devices.
      b: [n, d] embeddings of the second view, row i of the same example as row i of `a`.
      temperature: > 0; the smaller, the more the nearest negatives weigh.
      where: [n] examples that count, as if the others were not in the batch, whatever they hold; None is all.
      axis_name: mapped axis over which the batch is split, see the module's docstring.
      impl: how it is computed, see above; the loss is the same.
      block: largest number of rows in a block. Temporary memory is about [2n / devices, block] similarities.

    Returns:
      Scalar >= 0; log(2n - 1) if all rows are equal; 0 if fewer than two examples count.

    Raises:
      ValueError: unequal shapes, rank other than 2, a batch of 1, not floating point, temperature <= 0, block < 1, an
        unknown `impl`, "ring" without `axis_name`, or a second derivative of any form but "dense".
      TypeError: from JAX, in forward mode, of any form but "dense".

    References:
      Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020, eq. 1.
      Li et al., Contrastive Clustering, AAAI 2021, eqs. 2 and 3; the sum is without j = i, as in their code.
    """
    dtype = jnp.result_type(a, b)
    a, b = _checked_batch("nt_xent", axis_name, a, b)
    _check_temperature("nt_xent", temperature)
    if where is not None:
        if jnp.shape(where) != a.shape[:1]:
            raise ValueError(f"nt_xent: needs where [n], got {jnp.shape(where)} for {a.shape}")
        a, b = (jnp.where(where[:, None], x, 0) for x in (a, b))
    positive = jnp.sum(a * b, axis=1) / temperature
    first = axis_index(axis_name) * len(a)
    form = _form(impl, 2 * len(a) * axis_size(axis_name), axis_name, block)
    # Of several, each would need sums over the others' rows.
    one_device = axis_name is None and jax.device_count() == 1
    examples = (first + 1 + jnp.arange(len(a))) * (1 if where is None else where)
    if form == "dense":
        sums = dense_log_sums(a, b, examples, temperature, axis_name=axis_name, symmetric=one_device)
    else:
        # Stacked, not concatenated: the rows then stay on their devices under `jax.jit` too. In blocks half precision
        # stays so until it is multiplied.
        rows, examples = jnp.stack([a, b], axis=1).reshape(2 * len(a), -1).astype(dtype), jnp.repeat(examples, 2)
        if one_device:
            sums = symmetric_log_sums(rows, examples, temperature, block=block)
        else:
            sums = log_sums(rows, examples, temperature, axis_name=axis_name, ring=form == "ring", block=block)
        sums = sums.reshape(-1, 2).T
    # Equal to logsumexp with the positive minus the positive, whose gradient cancels at low temperature.
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
    """`nt_xent` over columns: each cluster must find its other view among the clusters of both.

    Similarity is the cosine between the 2k columns of [p | q]; a column of zeros, a cluster that nobody is
    in, has cosine 0 with every other. Devices exchange [2k, 2k] and [2k] sums only, never rows.

    Args:
      p: [n, k] soft assignments of the first view, >= 0; n >= 2 over all devices, k >= 2.
      q: [n, k] soft assignments of the second view.
      temperature: > 0.
      axis_name: mapped axis over which the batch is split, see the module's docstring.

    Returns:
      Scalar >= 0; log(2k - 1) if all columns are equal.

    Raises:
      ValueError: unequal shapes, rank other than 2, a batch or k of 1, not floating point, temperature <= 0.

    References:
      Li et al., Contrastive Clustering, AAAI 2021, eqs. 4 to 6, without the entropy term: see `imbalance`.
    """
    p, q = _checked_batch("cluster_contrast", axis_name, p, q)
    _check_temperature("cluster_contrast", temperature)
    k = p.shape[1]
    if k < 2:
        raise ValueError(f"cluster_contrast: needs 2 or more clusters, got {p.shape} and {q.shape}")
    similarity = _column_cosines(jnp.concatenate([p, q], axis=1), axis_name) / temperature
    return jnp.mean(_contrast(similarity.reshape(2, k, 2, k), jnp.diagonal(similarity, k), 0))


def imbalance(p: Float[Array, "n k"], *, axis_name: str | None = None) -> Float[Array, ""]:
    """KL divergence of the mean assignment m from the uniform one: ``log k + sum_j m_j log m_j``, in nats.

    m is the column sums of `p` divided by their total, so rows need not add up to 1. Value and gradient are
    finite with empty clusters, whose m_j log m_j and its derivative are taken as 0. The entropy of m is
    ``log k - imbalance(p)``. Devices exchange k sums.

    Args:
      p: [n, k] soft assignments, >= 0; n >= 2 over all devices.
      axis_name: mapped axis over which the batch is split, see the module's docstring.

    Returns:
      Scalar from 0 (clusters of equal weight) to log k (everything in one).

    Raises:
      ValueError: rank other than 2, a batch of 1, or not floating point.

    References:
      Li et al., Contrastive Clustering, AAAI 2021, H(Y) in eq. 6: this is log k - H(Y).
    """
    (p,) = _checked_batch("imbalance", axis_name, p)
    sums = psum(jnp.sum(p, axis=0), axis_name)
    sums, nonzero = _rescaled(sums, jnp.sum(sums))
    mean = sums / jnp.where(nonzero, jnp.sum(sums), 1)
    return jnp.sum(mean * jnp.log(jnp.where(mean > 0, mean * p.shape[1], 1)))


def normalize(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Rows divided by their Euclidean norm, at any scale: squares neither overflow nor vanish.

    A row of zeros (no entry above 1e-30) is returned as it is, its gradient passed on unchanged.

    Args:
      x: [n, d]; half precision comes back as float32.

    Returns:
      [n, d] rows of norm 1.

    Raises:
      ValueError: rank other than 2, or not floating point.
    """
    (x,) = _checked("normalize", x)
    x, nonzero = _rescaled(x, jnp.max(jnp.abs(x), axis=1, keepdims=True, initial=0))
    square = jnp.sum(x * x, axis=1, keepdims=True)
    return x * lax.rsqrt(jnp.where(nonzero, square, 1))


def _contrast(similarity: Array, positive: Array, first: int | Array) -> Array:
    """Cross-entropies [view, m] of m items, index `first` onwards, among n: [view, m, view, n]; `positive`: [m]."""
    _, m, _, n = similarity.shape
    # The same index in either view is the item itself or its positive.
    same = (first + jnp.arange(m))[:, None, None] == jnp.arange(n)
    negatives = jax.nn.logsumexp(jnp.where(same, EXCLUDED, similarity), axis=(2, 3))
    # Equal to logsumexp with the positive minus the positive, whose gradient cancels at low temperature.
    return jax.nn.softplus(negatives - positive)


def _column_cosines(x: Array, axis_name: str | None) -> Array:
    """[c, c] cosines between the columns of the global batch, from the devices' Gram matrices."""
    x, nonzero = _rescaled(x, psum(jnp.sum(jnp.abs(x), axis=0), axis_name))
    gram = psum(jnp.matmul(x.T, x, precision="highest"), axis_name)
    scale = lax.rsqrt(jnp.where(nonzero, jnp.diagonal(gram), 1))
    return gram * scale[:, None] * scale


def _rescaled(x: Array, size: Array) -> tuple[Array, Array]:
    """`x / size` and where it is not zero, for functions of `x` that do not depend on its scale.

    Clusters of 1e-18 are ordinary in a collapse: their squares vanish and the gradient of rsqrt overflows.
    For such functions `size` may be a constant to the gradient.
    """
    nonzero = size > _NEGLIGIBLE
    return x / lax.stop_gradient(jnp.where(nonzero, size, 1)), nonzero


def _checked_batch(name: str, axis_name: str | None, *arrays: Array) -> list[Array]:
    """`_checked`, with two rows or more over all devices."""
    checked = _checked(name, *arrays)
    if len(checked[0]) * axis_size(axis_name) < 2:
        raise ValueError(f"{name}: needs a batch of 2 or more, got {_shapes(arrays)}")
    return checked


def _checked(name: str, *arrays: Array) -> list[Array]:
    """`arrays`, of rank 2 and one shape, in one type of float32 or wider."""
    if len({jnp.shape(x) for x in arrays}) > 1 or jnp.ndim(arrays[0]) != 2:
        rule = "rank 2" if len(arrays) == 1 else "rank 2 and equal shapes"
        raise ValueError(f"{name}: needs {rule}, got {_shapes(arrays)}")
    types = [jnp.result_type(x) for x in arrays]
    if not all(jnp.issubdtype(t, jnp.floating) for t in types):
        names = " and ".join(map(str, types))
        raise ValueError(f"{name}: needs floating point, got {names} of shape {_shapes(arrays)}")
    common = jnp.result_type(jnp.float32, *types)
    return [jnp.asarray(x, common) for x in arrays]


def _shapes(arrays: tuple[Array, ...]) -> str:
    return " and ".join(str(jnp.shape(x)) for x in arrays)


def _check_temperature(name: str, temperature: float | Array) -> None:
    if isinstance(temperature, float | int) and not temperature > 0:
        raise ValueError(f"{name}: needs temperature > 0, got {temperature}")


def _form(impl: str, rows: int, axis_name: str | None, block: int) -> str:
    """How `nt_xent` of so many rows is computed: "dense", "blockwise" or "ring"."""
    if impl not in ("auto", "dense", "blockwise", "ring"):
        raise ValueError(f"nt_xent: needs impl 'auto', 'dense', 'blockwise' or 'ring', got {impl!r}")
    if block < 1:
        raise ValueError(f"nt_xent: needs block >= 1, got {block}")
    if impl == "ring" and axis_name is None:
        raise ValueError("nt_xent: impl='ring' needs axis_name: call it per device, in jax.shard_map or jax.pmap")
    if impl != "auto":
        return impl
    return "dense" if rows < _MANY else "blockwise" if axis_name is None else "ring"
