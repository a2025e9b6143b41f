"""Frozen features of one or several encoders, as the clustering heads (TURTLE, TEMI) read them.

The source "embeddings" gives one feature space, "image"; the source "multiview" gives one for each view, "view0",
"view1", ..., and a mask where rows are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from clustering_jax.errors import UserError
from clustering_jax.methods.views import view_masks, view_names
from clustering_jax.typing import Array, Float


class FeatureSpace(NamedTuple):
    """The rows of a batch in one feature space.

    Attributes:
      rows: [n, d] features, zeros where the row is missing.
      scale: [] the number that the features are multiplied by.
      weight: [n] weight of each row in a mean over the rows that are present; the sum is 1.
    """

    rows: Float[Array, "n d"]
    scale: Float[Array, ""]
    weight: Float[Array, " n"]


def space_names(batch: Mapping[str, Array]) -> list[str]:
    """Names of the feature spaces of a batch, in their order.

    Raises:
      UserError: the batch holds no feature space.
    """
    names = ["image"] if getattr(batch.get("image"), "ndim", 0) == 2 else view_names(batch)
    if not names:
        raise UserError("the data are no features: choose data.source embeddings or multiview")
    return names


def initial_norms(batch: Mapping[str, Array]) -> dict[str, Array]:
    """The collection that `updated_norms` updates, before the first step."""
    return {"steps": jnp.zeros(()), **{name: jnp.zeros(()) for name in space_names(batch)}}


def updated_norms(norms: Mapping[str, Array], batch: Mapping[str, Array]) -> dict[str, Array]:
    """The mean norm of the rows in each space, averaged over all steps so far.

    Args:
      norms: the collection before this step, {"steps": [], name: []}.
      batch: the rows of this step.
    """
    steps = norms["steps"] + 1
    updated = {"steps": steps}
    for name, weight in row_weights(batch).items():
        mean = jnp.sum(weight * jnp.linalg.norm(batch[name].astype(jnp.float32), axis=1))
        updated[name] = norms[name] + (mean - norms[name]) / steps
    return updated


def row_weights(batch: Mapping[str, Array]) -> dict[str, Array]:
    """Weights [n] of the rows in each space: equal for all present rows, with sum 1."""
    names = space_names(batch)
    present = [None] if names == ["image"] else view_masks(batch)
    n = batch[names[0]].shape[0]
    weights = [jnp.full(n, 1 / n) if mask is None else mask / jnp.maximum(mask.sum(), 1) for mask in present]
    return dict(zip(names, weights, strict=True))


def feature_spaces(norms: Mapping[str, Array] | None, batch: Mapping[str, Array]) -> dict[str, FeatureSpace]:
    """The feature spaces of a batch by name.

    Args:
      norms: mean norm of each space; its scale is sqrt(d) / norm, so that an entry has a mean square near 1. None
        keeps the features as they are.
      batch: rows of all spaces, or of some.
    """
    spaces = {}
    for name, weight in row_weights(batch).items():
        rows = batch[name].astype(jnp.float32)
        scale = jnp.ones(())
        if norms is not None:
            # Before the first step there is no norm yet.
            scale = jnp.where(norms[name] > 0, rows.shape[1] ** 0.5 / jnp.maximum(norms[name], 1e-30), 1.0)
        spaces[name] = FeatureSpace(rows, scale, weight)
    return spaces


def expected_rows(
    centers: Mapping[str, Array], probabilities: Array, batch: Mapping[str, Array]
) -> Float[Array, "n d"]:
    """The rows of all spaces side by side. For a space that a row lacks, it has the mean of its clusters' centres.

    Args:
      centers: centres of the clusters in each space, [k, d].
      probabilities: soft assignments [n, k], the weights of the mean.
      batch: rows of all spaces, or of some.
    """
    weights, parts = row_weights(batch), []
    for name, means in centers.items():
        expected = probabilities @ means
        if name in batch:
            expected = jnp.where((weights[name] > 0)[:, None], batch[name].astype(jnp.float32), expected)
        parts.append(expected)
    return jnp.concatenate(parts, 1)


def cluster_means(rows: Array, member: Array, weight: Array) -> Float[Array, "k d"]:
    """The mean of the present rows of each cluster; the mean of all present rows where a cluster has none.

    Args:
      rows: [n, d].
      member: one-hot clusters of the rows, [n, k].
      weight: weights of the rows as in `row_weights`, [n].
    """
    member = member * (weight > 0)[:, None]
    count = member.sum(0)[:, None]
    return jnp.where(count > 0, member.T @ rows / jnp.maximum(count, 1), weight @ rows)


def _side_by_side(names: tuple[str, ...], _: Any, batch: Mapping[str, Array]) -> Float[Array, "n d"]:
    return jnp.concatenate([batch[name].astype(jnp.float32) for name in names], 1)


def training_rows(widths: Mapping[str, int], infer: Callable) -> tuple[list[np.ndarray], np.ndarray]:
    """The rows [n, d] of all spaces of the training data, and which rows they have, bool [n, spaces].

    Args:
      widths: columns of each space by its name.
      infer: see `Phase.targets`.
    """
    # One function for all spaces, because each function is compiled.
    rows, mask = infer(partial(_side_by_side, tuple(widths)), None), infer(partial(_present, tuple(widths)), None)
    return np.split(rows, np.cumsum([*widths.values()])[:-1], axis=1), mask


def _present(names: tuple[str, ...], _: Any, batch: Mapping[str, Array]) -> Array:
    weights = row_weights(batch)
    return jnp.stack([weights[name] > 0 for name in names], 1)
