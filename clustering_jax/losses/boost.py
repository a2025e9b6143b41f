"""Contrast of rows that leaves out negatives of the same pseudo-label."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from clustering_jax.losses.blockwise import EXCLUDED
from clustering_jax.losses.checks import checked_batch
from clustering_jax.parallel import axis_index, gather, pmean
from clustering_jax.typing import Array, Float, Int


def labelled_nt_xent(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    temperature: float = 0.5,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """`nt_xent` without negatives that have the row's own label.

    The positive of a row is its other view alone. Rows without a label are negatives of all rows, and all rows are
    negatives of them. The similarities of all pairs of rows are in memory.

    Args:
      a: [n, d] embeddings of the first view, usually of norm 1; n >= 2 over all devices.
      b: [n, d] embeddings of the second view. Row i belongs to the same example as row i of `a`.
      labels: int [n], one for both views; negative for an example without a label.
      temperature: > 0.
      axis_name: mapped axis over which the batch is split, or None.

    Returns:
      Scalar >= 0; `nt_xent` if no example has a label, 0 if all have the same one.

    Raises:
      ValueError: unequal shapes, rank other than 2, a batch of 1, not floating point, temperature <= 0, or `labels` not
        integers [n].

    References:
      Li et al., Twin Contrastive Learning for Online Clustering, IJCV 2022, section 3.4.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import labelled_nt_xent
      >>> a = jnp.eye(4)
      >>> for labels in ([-1, -1, -1, -1], [0, 0, 1, -1], [2, 2, 2, 2]):
      ...     print(f"{labelled_nt_xent(a, a, jnp.array(labels)):.3f}")
      0.594
      0.514
      0.000
    """
    a, b = checked_batch("labelled_nt_xent", axis_name, a, b)
    if jnp.shape(labels) != a.shape[:1] or not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        got = f"{jnp.result_type(labels)} {jnp.shape(labels)}"
        raise ValueError(f"labelled_nt_xent: needs integer labels [n], got {got} for {a.shape}")
    if not temperature > 0:
        raise ValueError(f"labelled_nt_xent: needs temperature > 0, got {temperature}")
    n, labels = len(a), jnp.asarray(labels)
    numbers = axis_index(axis_name) * n + jnp.arange(n)
    all_labels, all_numbers = gather(labels, axis_name), gather(numbers, axis_name)
    rows, columns = jnp.stack([a, b]), jnp.stack([gather(a, axis_name), gather(b, axis_name)])
    similarity = jnp.einsum("vid,wjd->viwj", rows, columns, precision="highest") / temperature
    same = (labels[:, None] == all_labels) & (labels[:, None] >= 0)
    left_out = same | (numbers[:, None] == all_numbers)
    negatives = jax.nn.logsumexp(jnp.where(left_out[:, None], EXCLUDED, similarity), axis=(2, 3))
    # Equal to `logsumexp(all) - positive`, but its gradient does not suffer from cancellation at low temperatures.
    return pmean(jnp.mean(jax.nn.softplus(negatives - jnp.sum(a * b, axis=1) / temperature)), axis_name)
