"""k-means on scaled features or views side by side, as a method: what every other method is compared with.

One phase of one step. Its targets are the labels of scikit-learn's k-means on all rows, and the step takes the mean of
each cluster in each view. A row is assigned to the nearest mean over the views that it has, so rows that
lack views are predicted too. Of several seeds, the run keeps the one whose clusters the views predict best.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import cluster

from clustering_jax.errors import UserError
from clustering_jax.method import Batch, Method, Objective, Phase, Spec
from clustering_jax.methods.feature_spaces import row_weights, space_names
from clustering_jax.methods.monitor import occupancy
from clustering_jax.methods.view_agreement import view_agreement
from clustering_jax.settings.kmeans import KMeans
from clustering_jax.settings.validate import settings_of
from clustering_jax.training.optim import make_optimizer


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

    def init(key, batch):
        centers = {name: jnp.zeros((k, batch[name].shape[1])) for name in used(batch)}
        return {"params": {}, "centers": centers, "spread": {"mean": jnp.ones(())}}

    def targets(key, variables, infer):
        rows = np.concatenate([_filled(infer, variables, name) for name in variables["centers"]], 1)
        found = cluster.KMeans(k, n_init=s.restarts, random_state=int(jax.random.bits(key)))
        return {"label": found.fit_predict(rows)}

    def loss(variables, batch, key):
        member = jax.nn.one_hot(batch["label"], k)
        centers = {
            name: _means(batch[name], member, w) for name, w in row_weights(batch).items() if name in used(batch)
        }
        changed = {**variables, "centers": centers}
        changed["spread"] = {"mean": jnp.mean(jnp.min(distances(changed, batch), 1))}
        return jnp.zeros(()), ({name: changed[name] for name in ("centers", "spread")}, occupancy(member))

    def distances(variables, batch):
        """Squared distance of each row from each centre, as a mean over its views times their number, [n, k]."""
        total, count = 0.0, 0.0
        for name, weight in row_weights(batch).items():
            if name not in variables["centers"]:
                continue
            present = (weight > 0)[:, None]
            x, centers = batch[name].astype(jnp.float32), variables["centers"][name]
            squares = jnp.sum((x[:, None] - centers[None]) ** 2, -1) if x.shape[1] < 8 else _squares(x, centers)
            total, count = total + jnp.where(present, squares, 0), count + present
        return len(variables["centers"]) * total / jnp.maximum(count, 1)

    def predict(variables, batch):
        """Shares that fall with the squared distance, in units of the mean squared distance from the own centre."""
        return jax.nn.softmax(-distances(variables, batch) / jnp.maximum(variables["spread"]["mean"], 1e-12))

    def embed(variables, batch):
        n = batch[space_names(batch)[0]].shape[0]
        parts = variables["centers"].items()
        return jnp.concatenate([batch.get(name, jnp.zeros((n, c.shape[1]))) for name, c in parts], 1)

    def criterion(key, variables, infer):
        names = list(variables["centers"])
        if len(names) == 1:
            return float(infer(lambda v, b: distances(v, b).min(1), variables).mean())
        mask = np.stack([infer(partial(_present, name), variables) for name in names], 1)
        views = [infer(partial(_rows, name), variables) for name in names]
        return -view_agreement(views, infer(predict, variables).argmax(1), mask)

    tx = make_optimizer(total_steps=1, **(optimizer or {}))
    phases = (Phase("k-means", 1, (Objective(loss, tx),), targets=targets, whole=True),)
    return Method(init, phases, embed, predict, criterion=criterion)


def _rows(name: str, _: Any, batch: Batch) -> jax.Array:
    return batch[name].astype(jnp.float32)


def _present(name: str, _: Any, batch: Batch) -> jax.Array:
    return row_weights(batch)[name] > 0


def _filled(infer: Callable, variables: Any, name: str) -> np.ndarray:
    """All rows of a space, with the mean of the present ones in place of those that lack it, float32 [n, d]."""
    rows, present = (infer(partial(part, name), variables) for part in (_rows, _present))
    return np.where(present[:, None], rows, rows[present].mean(0) if present.any() else 0)


def _means(rows, member, weight):
    """Mean of the present rows of each cluster, [k, d]; the mean of all rows where a cluster has none."""
    member = member * (weight > 0)[:, None]
    count = member.sum(0)[:, None]
    return jnp.where(count > 0, member.T @ rows / jnp.maximum(count, 1), weight @ rows)


def _squares(x, centers):
    """Squared distances [n, k] from products. The shift to the centres' mean keeps the squares small."""
    middle = centers.mean(0)
    x, centers = x - middle, centers - middle
    squares = jnp.sum(x**2, 1)[:, None] - 2 * x @ centers.T + jnp.sum(centers**2, 1)
    return jnp.maximum(squares, 0)
