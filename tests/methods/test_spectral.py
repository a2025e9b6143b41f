"""Spectral clustering: its graph and votes are the textbook loops, and it finds clusters that are not round."""

import jax
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from clustering_jax import run
from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.errors import UserError
from clustering_jax.inference.predictor import Predictor
from clustering_jax.method import Spec
from clustering_jax.methods import METHODS
from clustering_jax.methods import spectral as module
from clustering_jax.methods.spectral import leading_vectors, neighbour_graph
from clustering_jax.settings import spectral

N, NEIGHBOURS = 120, 5
RNG = np.random.default_rng(0)
LABELS = np.arange(N) % 2
ALL = np.ones(N, bool)


def ring(radius, width):
    """Rows on a circle, or around its centre, in the first two of `width` columns."""
    angle = RNG.uniform(0, 2 * np.pi, N)
    rows = 0.05 * RNG.normal(size=(N, width))
    rows[:, :2] += radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return rows.astype(np.float32)


VIEWS = {f"view{v}": ring(np.where(LABELS, 3.0, 0.5), d) for v, d in enumerate((2, 9))}
MASK = np.ones((N, 2), bool)
MASK[:8, 0], MASK[8:16, 1] = False, False


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The result, and the predictor, of a run on views of which some are missing."""
    workdir = tmp_path_factory.mktemp("spectral") / "run"
    features = {name: np.where(MASK[:, [v]], x, 0) for v, (name, x) in enumerate(VIEWS.items())}
    dataset = Dataset({**features, "mask": MASK}, row_ids(N), LABELS, "rings", "all")
    config = spectral(num_clusters=2, model={"neighbours": NEIGHBOURS}).to_dict()
    result = run.train(config, workdir, streams={"train": dataset}, quiet=True, reported=False)
    return dataset, result, Predictor.restore(workdir)


def test_the_graph_is_the_textbook_loop():
    x, n = VIEWS["view1"][:30].astype(np.float64), 30
    distances = np.linalg.norm(x[:, None] - x[None], axis=2)
    order = np.argsort(distances, axis=1)
    scale = distances[np.arange(n), order[:, NEIGHBOURS]]
    expected = np.zeros((n, n))
    for i in range(n):
        for j in order[i, 1 : NEIGHBOURS + 1]:
            expected[i, j] = expected[j, i] = np.exp(-(distances[i, j] ** 2) / (scale[i] * scale[j]))
    degree = expected.sum(1)
    graph, found = neighbour_graph(x, np.ones(n, bool), NEIGHBOURS)
    np.testing.assert_allclose(graph.toarray(), expected / np.sqrt(np.outer(degree, degree)), atol=1e-9)
    np.testing.assert_allclose(found, scale, rtol=1e-6)


@pytest.mark.parametrize("change", [lambda x: 1e4 * x + 3, lambda x: x[:, ::-1]], ids=["units", "columns"])
def test_units_and_the_order_of_columns_do_not_matter(change):
    graph, other = (neighbour_graph(x, ALL, NEIGHBOURS)[0] for x in (VIEWS["view1"], change(VIEWS["view1"])))
    np.testing.assert_allclose(other.toarray(), graph.toarray(), atol=0.02)


def test_rows_without_a_view_have_no_edges_in_it():
    present = ALL.copy()
    present[:7] = False
    graph = neighbour_graph(np.where(present[:, None], VIEWS["view0"], 1e6), present, NEIGHBOURS)[0].toarray()
    assert not graph[:7].any() and not graph[:, :7].any() and graph[7:].any(1).all()
    assert not neighbour_graph(VIEWS["view0"], np.arange(N) == 3, NEIGHBOURS)[0].toarray().any()


def test_few_rows_have_vectors_too():
    graph = neighbour_graph(VIEWS["view0"][:5], np.ones(5, bool), 2)[0]
    np.testing.assert_allclose(np.linalg.norm(leading_vectors([graph], 3), axis=1), 1, rtol=1e-6)


def test_rings_are_found_where_k_means_fails(trained):
    _, result, _ = trained
    rows = np.concatenate([*VIEWS.values()], 1)
    assert adjusted_rand_score(LABELS, KMeans(2, n_init=10, random_state=0).fit_predict(rows)) < 0.5
    assert result["scores"]["acc"] > 0.98 and result["method"] == "spectral"


def test_the_votes_are_the_textbook_loop(trained):
    dataset, _, predictor = trained
    graph = jax.device_get(predictor.variables["graph"])
    new = {name: x[:6] + 0.3 for name, x in VIEWS.items()}
    votes = np.zeros((6, 2))
    for v, name in enumerate(VIEWS):
        for i, row in enumerate(new[name].astype(np.float64)):
            distance = np.linalg.norm(dataset.features[name] - row, axis=1)
            distance[~MASK[:, v]] = np.inf
            near = np.argsort(distance)[: NEIGHBOURS + 1]
            for j in near:
                gap = distance[j] ** 2 - distance[near[0]] ** 2
                votes[i, graph["label"][j]] += np.exp(-gap / (distance[near[-1]] * graph["scale"][name][j]))
    np.testing.assert_allclose(predictor.predict_proba(new), votes / votes.sum(1, keepdims=True), atol=1e-4)


def test_chunks_change_nothing(trained, monkeypatch):
    dataset, _, predictor = trained
    monkeypatch.setattr(module, "CHUNK", 50)
    method = METHODS["spectral"](Spec(2, N, 1, {"train": 1}), neighbours=NEIGHBOURS)
    found = method.predict(predictor.variables, dataset.features)
    np.testing.assert_allclose(found, predictor.predict_proba(dataset.features), atol=1e-5)


def test_new_rows_follow_their_neighbours_in_the_views_that_they_have(trained):
    dataset, _, predictor = trained
    own = predictor.predict(dataset.features)
    near = {name: x + 0.01 for name, x in VIEWS.items()}
    assert (predictor.predict(near) == own).mean() > 0.95
    assert (predictor.predict({"view1": near["view1"]}) == own).mean() > 0.95
    far = predictor.predict_proba({name: 1e3 + x for name, x in VIEWS.items()})
    assert np.isfinite(far).all()
    np.testing.assert_allclose(far.sum(1), 1, rtol=1e-5)
    none = {**near, "mask": np.zeros((N, 2), bool)}
    np.testing.assert_allclose(predictor.predict_proba(none), 0.5)


def test_features_of_rows_that_lack_a_view_have_the_mean_of_their_cluster(trained):
    _, _, predictor = trained
    only = {"view1": VIEWS["view1"]}
    labels = predictor.predict(VIEWS)
    means = np.stack([VIEWS["view0"][MASK[:, 0] & (labels == c)].mean(0) for c in range(2)])
    found = predictor.embed(only)
    np.testing.assert_allclose(found[:, :2], predictor.predict_proba(only) @ means, atol=1e-4)
    np.testing.assert_allclose(found[:, 2:], VIEWS["view1"], atol=1e-6)
    holes = {"view0": np.full((N, 2), 1e3), "view1": VIEWS["view1"], "mask": np.tile([False, True], (N, 1))}
    np.testing.assert_allclose(predictor.embed(holes), found, atol=1e-5)


def test_parts_of_the_rows_are_refused():
    with pytest.raises(UserError, match="batch_size is 40: spectral clustering takes all rows"):
        METHODS["spectral"](Spec(2, 40, 1, {"train": 3}))
