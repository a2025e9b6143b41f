"""Self-labelling: cross-entropy with the network's own confident assignments."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from clustering_jax.losses.checks import checked_batch
from clustering_jax.parallel import psum
from clustering_jax.typing import Array, Float


def self_label_loss(
    strong: Float[Array, "n k"],
    weak: Float[Array, "n k"],
    *,
    threshold: float = 0.99,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Cross-entropy of strongly augmented rows with the confident assignments of the same rows.

    A row is confident if its largest entry of `weak` exceeds `threshold`. The cluster of this entry is its label; other
    rows are left out. Each cluster has the same total weight, for any number of confident rows: the weight of a row is
    n_confident / n_cluster.

    Args:
      strong: [n, k] soft assignments of the strongly augmented rows, each row on the simplex.
      weak: [n, k] soft assignments of the same rows without strong augmentation. No gradient flows into them.
      threshold: in [0, 1).
      axis_name: mapped axis over which the batch is split, or None.

    Returns:
      Scalar >= 0, the weighted mean; 0 if no row is confident.

    Raises:
      ValueError: unequal shapes, rank other than 2, a batch of 1, or not floating point.

    References:
      Van Gansbeke et al., SCAN: Learning to Classify Images without Labels, ECCV 2020, section 2.3.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import self_label_loss
      >>> strong = jnp.array([[0.5, 0.5], [0.1, 0.9]])
      >>> weak = jnp.array([[1.0, 0.0], [0.4, 0.6]])
      >>> print(f"{self_label_loss(strong, weak):.3f}")  # only the first row is confident: log 2
      0.693
    """
    strong, weak = checked_batch("self_label_loss", axis_name, strong, weak)
    weak = jax.lax.stop_gradient(weak)
    confident = weak.max(1) > threshold
    label = jax.nn.one_hot(weak.argmax(1), weak.shape[1], dtype=strong.dtype) * confident[:, None]
    sizes = psum(label.sum(0), axis_name)
    weight = label @ jnp.where(sizes > 0, 1 / jnp.maximum(sizes, 1), 0)
    log_p = jnp.log(jnp.maximum(strong, jnp.finfo(strong.dtype).tiny))
    total = psum(-jnp.sum(weight * jnp.sum(label * log_p, 1)), axis_name)
    return total / jnp.maximum(jnp.sum(sizes > 0), 1)
