"""The views of a batch, the rows in which a view is missing, and what the views have in common.

A mask of one view is bool [n], True in the rows that have the view; None means that all rows have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import jax.numpy as jnp
import numpy as np
from sklearn.metrics import mutual_info_score

from clustering_jax.typing import Array


def view_names(batch: Mapping[str, Any]) -> list[str]:
    """The names of the views in a batch, in their order."""
    return sorted((k for k in batch if k.startswith("view")), key=view_number)


def view_number(name: str) -> int:
    """The number in the name of a view."""
    return int(name.removeprefix("view"))


def view_masks(batch: Mapping[str, Array]) -> list[Array | None]:
    """The mask of each view in a batch, in the order of `view_names`."""
    names = view_names(batch)
    return [batch["mask"][:, view_number(v)] for v in names] if "mask" in batch else [None] * len(names)


def stack_masks(n: int, masks: Iterable[Array | None]) -> Array:
    """The masks of several views of n rows as one array, bool [n, views]."""
    return jnp.stack([jnp.ones(n, bool) if mask is None else mask for mask in masks], 1)


def view_mask(_: Any, batch: Mapping[str, Array]) -> Array:
    """Which rows of a batch have which view, bool [n, views]; its arguments are those that `infer` passes."""
    return stack_masks(len(batch[view_names(batch)[0]]), view_masks(batch))


def both_present(a: Array | None, b: Array | None) -> Array | None:
    """The mask of the rows that have two views."""
    return a if b is None else b if a is None else a & b


def view_pairs(
    masks: Sequence[Array | None], weights: Array | None = None
) -> Iterator[tuple[int, int, Array | None, Array | int]]:
    """The numbers of each pair of views, the mask of the rows that have both, and the product of their weights or 1."""
    for v, w in combinations(range(len(masks)), 2):
        yield v, w, both_present(masks[v], masks[w]), 1 if weights is None else weights[v] * weights[w]


def fill_missing(rows: Array, mask: Array | None, value: Array | float = 0.0) -> Array:
    """Replaces the rows [n, d] in which a view is missing by `value`."""
    return rows if mask is None else jnp.where(mask[:, None], rows, value)


def mixture(c: Array, view_mask: Array, weights: Array | None = None) -> Array:
    """The mean assignment over the views of each row.

    Args:
      c: assignments in each view, [n, views, k].
      view_mask: which rows have which view, bool [n, views].
      weights: weight of each view in the mean, [views], above 0; None for equal weights.

    Returns:
      [n, k]; 1/k for a row without any view.
    """
    share = view_mask * (jnp.ones(c.shape[1]) if weights is None else weights)
    seen = view_mask.any(1)[:, None]
    total = jnp.sum(c * share[..., None], 1, where=view_mask[..., None])
    return jnp.where(seen, total / jnp.where(seen, share.sum(1, keepdims=True), 1), 1 / c.shape[-1])


def mean_pairwise_mi(labels: np.ndarray, view_mask: np.ndarray) -> float:
    """The mutual information between the hard assignments of two views, as a mean over the pairs of views.

    Args:
      labels: cluster of each row in each view, int [n, views].
      view_mask: which rows have which view, bool [n, views].

    Returns:
      Nats. The largest value, the logarithm of the number of clusters, is reached when the views agree on clusters of
      equal size. It is 0 when all rows are in one cluster, or when no row has two views.
    """
    pairs = [(v, w, view_mask[:, v] & view_mask[:, w]) for v, w in combinations(range(labels.shape[1]), 2)]
    values = [mutual_info_score(labels[rows, v], labels[rows, w]) for v, w, rows in pairs if rows.any()]
    return float(np.mean(values or [0.0]))
