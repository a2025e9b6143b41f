"""What a batch of views holds and lacks, and what methods on views say of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import jax.numpy as jnp
import numpy as np
from sklearn.metrics import mutual_info_score

from clustering_jax.typing import Array


def view_names(batch: Mapping[str, Any]) -> list[str]:
    """The views of a batch in their order."""
    return sorted((k for k in batch if k.startswith("view")), key=lambda name: int(name.removeprefix("view")))


def presence(batch: Mapping[str, Array]) -> list[Array | None]:
    """Which rows have each view, bool [n]; None is all of them."""
    names = view_names(batch)
    return [batch["mask"][:, int(v.removeprefix("view"))] for v in names] if "mask" in batch else [None] * len(names)


def there(n: int, present: Iterable[Array | None]) -> Array:
    """`presence` of n rows as one array, bool [n, views]."""
    return jnp.stack([jnp.ones(n, bool) if where is None else where for where in present], 1)


def masks(_: Any, batch: Mapping[str, Array]) -> Array:
    """`there` of a batch, as a function that `infer` takes."""
    return there(len(batch[view_names(batch)[0]]), presence(batch))


def both(a: Array | None, b: Array | None) -> Array | None:
    """Which rows have two views."""
    return a if b is None else b if a is None else a & b


def kept(rows: Array, where: Array | None, other: Array | float = 0.0) -> Array:
    """[n, d] with `other` in the rows not `where`."""
    return rows if where is None else jnp.where(where[:, None], rows, other)


def mixture(c: Array, some: Array) -> Array:
    """The mean of [n, views, k] over the views that `some` [n, views] has; 1/k for none."""
    total = jnp.sum(c, 1, where=some[..., None]) / jnp.maximum(some.sum(1), 1)[:, None]
    return jnp.where(some.any(1)[:, None], total, 1 / c.shape[-1])


def shared_information(labels: np.ndarray, mask: np.ndarray) -> float:
    """Mutual information of the views' hard assignments, int [n, views], in nats: the mean over pairs of views.

    Greatest, the logarithm of the number of clusters, where the views agree on clusters of equal size; 0 in a collapse,
    or where no row has two views. mask: bool [n, views].
    """
    pairs = [(v, w, mask[:, v] & mask[:, w]) for v, w in combinations(range(labels.shape[1]), 2)]
    found = [mutual_info_score(labels[rows, v], labels[rows, w]) for v, w, rows in pairs if rows.any()]
    return float(np.mean(found or [0.0]))
