"""Spectral clustering of views: their graphs of nearest neighbours are averaged, and the graph is cut into clusters.

Each view has a graph: a row is joined to its nearest neighbours, and an edge weighs by the distance in units of the
distances to the last neighbours of both ends, so the scale of a view does not matter (Zelnik-Manor and Perona, NIPS
2004). The normalised graphs are averaged over the views, and k-means finds clusters in the leading eigenvectors, with
rows of norm 1 (Ng, Jordan and Weiss, NIPS 2001). Clusters may have any shape, unlike those of k-means.

One phase of one step, whose targets are the clusters. The model holds all rows: a new row is assigned by the weighted
vote of its nearest neighbours in each view that it has.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy import sparse
from scipy.sparse.linalg import eigsh
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from clustering_jax.errors import UserError
from clustering_jax.method import Method, Objective, Phase, Spec
from clustering_jax.methods.feature_spaces import cluster_means, expected_rows, row_weights, space_names, training_rows
from clustering_jax.methods.kmeans import squared_distances
from clustering_jax.methods.monitor import occupancy
from clustering_jax.methods.view_agreement import view_agreement
from clustering_jax.nn.chunks import chunked
from clustering_jax.settings.spectral import Spectral
from clustering_jax.settings.validate import settings_of
from clustering_jax.training.optim import make_optimizer

# Distances that are 0, between equal rows, still have a scale.
TINY = 1e-12
# Rows that are compared with all others at a time, so that the memory does not grow with the square of their number.
CHUNK = 512


def build(spec: Spec, *, optimizer: dict | None = None, **model: Any) -> Method:
    """Spectral clustering for a run.

    Args:
      spec: the run. The batch size is the number of rows.
      optimizer: fields of `Optimizer`; there is no gradient, so they change nothing.
      model: fields of `Spectral`, which documents them and holds their defaults.

    Returns:
      The method.

    Raises:
      UserError: an unknown setting, or a batch size below the number of rows.
    """
    s, k, n = settings_of(Spectral, model, "method 'spectral'", group="model"), spec.num_clusters, spec.batch_size
    if spec.steps_per_epoch["train"] != 1:
        raise UserError(f"batch_size is {n}: spectral clustering takes all rows, set --config.batch_size=0")

    def init(key, batch):
        rows = {name: jnp.zeros((n, batch[name].shape[1])) for name in space_names(batch)}
        scale = {name: jnp.ones(n) for name in rows}
        present = {name: jnp.ones(n, bool) for name in rows}
        return {"params": {}, "graph": {"rows": rows, "scale": scale, "present": present, "label": jnp.zeros(n, int)}}

    def targets(key, variables, infer):
        widths, graphs, scales = widths_of(variables), [], {}
        views, mask = training_rows(widths, infer)
        for name, rows, present in zip(widths, views, mask.T, strict=True):
            graph, scales[f"scale_{name}"] = neighbour_graph(rows, present, s.neighbours)
            graphs.append(graph)
        vectors = leading_vectors(graphs, k)
        found = KMeans(k, n_init=s.restarts, random_state=int(jax.random.bits(key))).fit_predict(vectors)
        return {"label": found.astype(np.int32), **scales}

    def loss(variables, batch, key):
        names = variables["graph"]["rows"]
        graph = {
            "rows": {name: batch[name].astype(jnp.float32) for name in names},
            "scale": {name: batch[f"scale_{name}"] for name in names},
            "present": {name: weight > 0 for name, weight in row_weights(batch).items()},
            "label": batch["label"].astype(variables["graph"]["label"].dtype),
        }
        return jnp.zeros(()), ({"graph": graph}, occupancy(jax.nn.one_hot(batch["label"], k)))

    def predict(variables, batch):
        return chunked(partial(shares, variables), CHUNK)(batch)

    def shares(variables, batch):
        graph, votes = variables["graph"], jnp.zeros(())
        for name, weight in row_weights(batch).items():
            rows, present = graph["rows"][name], graph["present"][name]
            squares = squared_distances(batch[name].astype(jnp.float32), rows)
            near, index = lax.top_k(-jnp.where(present, squares, jnp.inf), min(s.neighbours + 1, n))
            # Without a barrier, XLA's CPU backend sorts whole rows, because single columns of the result are taken.
            near = lax.optimization_barrier(near)
            # A row of the training is its own nearest neighbour.
            own = jnp.sqrt(jnp.maximum(-near[:, -1:], TINY))
            edges = jnp.exp((near - near[:, :1]) / jnp.maximum(own * graph["scale"][name][index], TINY))
            edges = jnp.where(jnp.isfinite(near) & (weight > 0)[:, None], edges, 0)
            votes += jnp.sum(edges[..., None] * jax.nn.one_hot(graph["label"][index], k), 1)
        total = jnp.sum(votes, 1, keepdims=True)
        return jnp.where(total > 0, votes / jnp.where(total > 0, total, 1), 1 / k)

    def embed(variables, batch):
        graph, centers = variables["graph"], {}
        for name, rows in graph["rows"].items():
            present = graph["present"][name]
            weight = present / jnp.maximum(present.sum(), 1)
            centers[name] = cluster_means(rows, jax.nn.one_hot(graph["label"], k), weight)
        return expected_rows(centers, predict(variables, batch), batch)

    def criterion(key, variables, infer):
        views, mask = training_rows(widths_of(variables), infer)
        return -view_agreement(views, infer(predict, variables).argmax(1), k, mask)

    def widths_of(variables):
        return {name: rows.shape[1] for name, rows in variables["graph"]["rows"].items()}

    tx = make_optimizer(total_steps=1, **(optimizer or {}))
    phases = (Phase("spectral", 1, (Objective(loss, tx),), targets=targets, whole=True),)
    return Method(init, phases, embed, predict, criterion=criterion)


def neighbour_graph(x: np.ndarray, present: np.ndarray, neighbours: int) -> tuple[sparse.csr_array, np.ndarray]:
    """The symmetric, normalised graph of nearest neighbours of one view.

    Args:
      x: rows, [n, d].
      present: which rows have the view, bool [n]; the others have no edges.
      neighbours: neighbours of each row.

    Returns:
      The graph [n, n], and the distance of each row to its last neighbour, float32 [n].
    """
    n, rows = len(x), np.flatnonzero(present)
    count, scale = min(neighbours, len(rows) - 1), np.ones(n, np.float32)
    if count < 1:
        return sparse.csr_array((n, n)), scale
    distances, near = NearestNeighbors(n_neighbors=count).fit(x[rows]).kneighbors()
    last = np.maximum(distances[:, -1], TINY)
    scale[rows] = last
    weights = np.exp(-(distances**2) / (last[:, None] * last[near]))
    graph = sparse.csr_array((weights.ravel(), (np.repeat(rows, count), rows[near].ravel())), (n, n))
    return _normalised(graph.maximum(graph.T)), scale


def leading_vectors(graphs: list[sparse.csr_array], k: int) -> np.ndarray:
    """The `k` leading eigenvectors of the mean of normalised graphs, [n, k], with rows of norm 1."""
    graph = _normalised(sum(graphs[1:], start=graphs[0]))
    n = graph.shape[0]
    if n <= 2 * k + 1:
        # Lanczos' method needs more rows than this.
        vectors = np.linalg.eigh(graph.toarray())[1][:, -k:]
    else:
        # A fixed start, so that the same rows give the same vectors.
        vectors = eigsh(graph, k, which="LA", v0=np.ones(n))[1]
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), TINY)


def _normalised(graph: sparse.csr_array) -> sparse.csr_array:
    """The graph with each edge divided by the root of the degrees of both ends."""
    root, edges = np.sqrt(np.maximum(graph.sum(axis=1), TINY)), graph.tocoo()
    return sparse.csr_array((edges.data / (root[edges.row] * root[edges.col]), (edges.row, edges.col)), graph.shape)
