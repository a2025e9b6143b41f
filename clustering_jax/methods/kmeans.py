"""k-means on scaled features or views side by side, as a method: what every other method is compared with.

One phase of one step. Its targets are the labels of scikit-learn's k-means on all rows, and the step takes the mean of
each cluster in each view. With many columns, the restarts run on the first principal components, and Lloyd's algorithm
goes on from the best of them on all columns: this takes a fifth of the time on images. A row is assigned to the nearest
mean over the views that it has, so rows that lack views are predicted too; for the labels, their nearest rows stand in
for what they lack. Of several seeds, the run keeps the one whose clusters the views predict best.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import cluster
from sklearn.decomposition import PCA

from clustering_jax.errors import UserError
from clustering_jax.method import Method, Objective, Phase, Spec
from clustering_jax.methods.feature_spaces import cluster_means, expected_rows, row_weights, space_names, training_rows
from clustering_jax.methods.imputation import from_neighbours
from clustering_jax.methods.monitor import occupancy
from clustering_jax.methods.view_agreement import agreement, view_folds
from clustering_jax.settings.kmeans import KMeans
from clustering_jax.settings.validate import settings_of
from clustering_jax.training.optim import make_optimizer

# Above this number of columns, the restarts run on as many principal components.
COLUMNS = 256


def build(spec: Spec, *, optimizer: dict | None = None, **model: Any) -> Method:
    """k-means for a run.

    Args:
      spec: the run. A batch is all rows, whatever its batch size.
      optimizer: fields of `Optimizer`; k-means has no gradient, so they change nothing.
      model: fields of `settings.kmeans.KMeans`, which documents them and holds their defaults.

    Returns:
      The method.

    Raises:
      UserError: an unknown setting, or the data lack the view that `model.view` names.
    """
    s, k = settings_of(KMeans, model, "method 'kmeans'", group="model"), spec.num_clusters

    def used(batch):
        names = space_names(batch)
        if s.view >= 0 and f"view{s.view}" not in names:
            raise UserError(f"model.view is {s.view}: the data have {', '.join(names)}")
        return [name for name in names if s.view < 0 or name == f"view{s.view}"]

    @cache  # They are the same for every seed.
    def rows_of(infer, *widths):
        return training_rows(dict(widths), infer)

    @cache
    def joined_of(infer, *widths):
        """The rows with their views side by side, and the columns for the restarts."""
        views, mask = rows_of(infer, *widths)
        filled = from_neighbours(views, mask)
        if s.equal_views:
            shares = mask.T / np.maximum(mask.sum(0), 1)[:, None]
            filled = [x * _inverse_variance(x, share) ** 0.5 for x, share in zip(filled, shares, strict=True)]
        rows = np.concatenate(filled, 1)
        return rows, few_columns(rows)

    @cache
    def folds_of(infer, *widths):
        return view_folds(*rows_of(infer, *widths))

    def init(key, batch):
        centers = {name: jnp.zeros((k, batch[name].shape[1])) for name in used(batch)}
        weight = {name: jnp.ones(()) for name in centers}
        return {"params": {}, "centers": centers, "spread": {"mean": jnp.ones(())}, "weight": weight}

    def targets(key, variables, infer):
        rows, few = joined_of(infer, *_widths(variables).items())
        return {"label": clusters_of(rows, few, k, s.restarts, int(jax.random.bits(key)))}

    def loss(variables, batch, key):
        member = jax.nn.one_hot(batch["label"], k)
        centers = {
            name: cluster_means(batch[name], member, w) for name, w in row_weights(batch).items() if name in used(batch)
        }
        changed = {**variables, "centers": centers}
        if s.equal_views:
            changed["weight"] = {
                name: _inverse_variance(batch[name], w) for name, w in row_weights(batch).items() if name in centers
            }
        changed["spread"] = {"mean": jnp.mean(jnp.min(distances(changed, batch), 1))}
        return jnp.zeros(()), ({name: changed[name] for name in ("centers", "spread", "weight")}, occupancy(member))

    def distances(variables, batch):
        """Squared distance of each row from each centre, as a mean over its views times their number, [n, k]."""
        total, count = 0.0, 0.0
        for name, weight in row_weights(batch).items():
            if name not in variables["centers"]:
                continue
            present = (weight > 0)[:, None]
            squares = squared_distances(batch[name].astype(jnp.float32), variables["centers"][name])
            squares *= variables["weight"][name]
            total, count = total + jnp.where(present, squares, 0), count + present
        return len(variables["centers"]) * total / jnp.maximum(count, 1)

    def predict(variables, batch):
        """Shares that fall with the squared distance, in units of the mean squared distance from the own centre."""
        return jax.nn.softmax(-distances(variables, batch) / jnp.maximum(variables["spread"]["mean"], 1e-12))

    def embed(variables, batch):
        return expected_rows(variables["centers"], predict(variables, batch), batch)

    def criterion(key, variables, infer):
        if len(variables["centers"]) == 1:
            return float(infer(lambda v, b: distances(v, b).min(1), variables).mean())
        return -agreement(folds_of(infer, *_widths(variables).items()), infer(predict, variables).argmax(1), k)

    tx = make_optimizer(total_steps=1, **(optimizer or {}))
    phases = (Phase("k-means", 1, (Objective(loss, tx),), targets=targets, whole=True),)
    return Method(init, phases, embed, predict, criterion=criterion)


def _widths(variables: Any) -> dict[str, int]:
    return {name: centers.shape[1] for name, centers in variables["centers"].items()}


def few_columns(rows: np.ndarray) -> np.ndarray:
    """The first `COLUMNS` principal components of rows that have more columns, [n, COLUMNS]; fewer if n is smaller."""
    if rows.shape[1] <= COLUMNS:
        return rows
    with np.errstate(invalid="ignore"):  # Equal rows have no variance to explain.
        return PCA(min(COLUMNS, len(rows)), random_state=0).fit_transform(rows)


def clusters_of(rows: np.ndarray, few: np.ndarray, k: int, restarts: int, seed: int) -> np.ndarray:
    """The clusters of scikit-learn's k-means, int [n].

    Args:
      rows: [n, d].
      few: the columns for the restarts, from `few_columns`.
      k: number of clusters.
      restarts: number of restarts, of which the smallest inertia is kept.
      seed: seed of the restarts.
    """
    found = cluster.KMeans(k, n_init=restarts, random_state=seed).fit_predict(few)
    if few is rows:
        return found
    centers = np.stack([rows[found == number].mean(0) for number in np.unique(found)])
    return cluster.KMeans(len(centers), init=centers, n_init=1).fit_predict(rows)


def squared_distances(x: jax.Array, centers: jax.Array) -> jax.Array:
    """Squared distances [n, k] of rows [n, d] from centres [k, d]."""
    return jnp.sum((x[:, None] - centers[None]) ** 2, -1) if x.shape[1] < 8 else _squares(x, centers)


def _inverse_variance(x: Any, weight: Any) -> Any:
    """1 / the variance of a whole view, the sum over its columns; `weight` are the weights of the rows in the mean."""
    variance = jnp.sum(weight @ (x - weight @ x) ** 2)
    return jnp.where(variance > 0, 1 / jnp.where(variance > 0, variance, 1), 0)


def _squares(x, centers):
    """Squared distances [n, k] from products. The shift to the centres' mean keeps the squares small."""
    middle = centers.mean(0)
    x, centers = x - middle, centers - middle
    squares = jnp.sum(x**2, 1)[:, None] - 2 * x @ centers.T + jnp.sum(centers**2, 1)
    return jnp.maximum(squares, 0)
