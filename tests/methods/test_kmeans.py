"""k-means as a method: scikit-learn's clusters, the nearest mean for new rows, and rows that lack views."""

import jax
import numpy as np
import pytest
from sklearn.cluster import KMeans

from clustering_jax import metrics, run
from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.errors import UserError
from clustering_jax.inference.predictor import Predictor
from clustering_jax.method import Spec
from clustering_jax.methods import METHODS
from clustering_jax.methods import kmeans as method
from clustering_jax.settings import kmeans

K, N = 3, 60
RNG = np.random.default_rng(0)
LABELS = np.arange(N) % K
VIEWS = {f"view{v}": (4 * RNG.normal(size=(K, d))[LABELS] + RNG.normal(size=(N, d))) for v, d in enumerate((4, 9))}
VIEWS = {name: rows.astype(np.float32) for name, rows in VIEWS.items()}


def trained(workdir, features, **changes):
    config = kmeans(num_clusters=K, **changes).to_dict()
    dataset = Dataset(features, row_ids(N), LABELS, "views", "all")
    result = run.train(config, workdir, streams={"train": dataset}, quiet=True, reported=False)
    return result, Predictor.restore(workdir)


def same(a, b):
    return len({*zip(a.tolist(), b.tolist(), strict=True)}) == K


def test_clusters_and_means_are_scikit_learns(tmp_path):
    result, predictor = trained(tmp_path, VIEWS)
    rows = np.concatenate([*VIEWS.values()], 1)
    found = KMeans(K, n_init=10, random_state=0).fit(rows)
    labels = predictor.predict(VIEWS)
    assert same(labels, found.labels_) and result["scores"]["acc"] == 1
    centers = np.concatenate([np.asarray(c) for c in predictor.variables["centers"].values()], 1)
    np.testing.assert_allclose(centers[labels], found.cluster_centers_[found.labels_], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(float(predictor.variables["spread"]["mean"]), found.inertia_ / N, rtol=1e-4)


@pytest.mark.parametrize("columns", [8, 256])
def test_restarts_on_principal_components_are_as_good(columns, monkeypatch):
    """With 256 components of 60 rows nothing is lost; with 8, Lloyd's algorithm goes on with all columns."""
    monkeypatch.setattr(method, "COLUMNS", columns)
    rng = np.random.default_rng(1)
    rows = (rng.normal(size=(5, 300))[np.arange(N) % 5] + 1.5 * rng.normal(size=(N, 300))).astype(np.float32)
    few = method.few_columns(rows)
    assert few.shape == (N, min(columns, N))
    found = method.clusters_of(rows, few, 5, 10, 0)
    inertia = sum(((rows[found == j] - rows[found == j].mean(0)) ** 2).sum() for j in range(5))
    expected = KMeans(5, n_init=10, random_state=0).fit(rows)
    np.testing.assert_allclose(inertia, expected.inertia_, rtol=1e-3 if columns == 8 else 1e-5)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_fewer_distinct_rows_than_clusters(monkeypatch):
    monkeypatch.setattr(method, "COLUMNS", 2)
    rows = np.eye(2, 9, dtype=np.float32)[np.arange(N) % 2]
    found = method.clusters_of(rows, method.few_columns(rows), 4, 2, 0)
    assert len({*zip(found.tolist(), (np.arange(N) % 2).tolist(), strict=True)}) == 2
    np.testing.assert_array_equal(method.few_columns(np.ones((N, 9), np.float32)), 0)


def test_probabilities_fall_with_the_distance(tmp_path):
    _, predictor = trained(tmp_path, VIEWS)
    squares = sum(
        ((rows[:, None] - np.asarray(predictor.variables["centers"][name])[None]) ** 2).sum(-1)
        for name, rows in VIEWS.items()
    )
    logits = -squares / squares.min(1).mean()
    expected = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(predictor.predict_proba(VIEWS), expected / expected.sum(1, keepdims=True), atol=1e-5)


def test_rows_that_lack_a_view_go_by_the_other(tmp_path):
    mask = np.ones((N, 2), bool)
    mask[:10, 0], mask[10:20, 1] = False, False
    holes = {name: np.where(mask[:, [v]], rows, 0) for v, (name, rows) in enumerate(VIEWS.items())}
    result, predictor = trained(tmp_path, {**holes, "mask": mask})
    assert result["scores"]["acc"] > 0.9
    # What a missing view holds does not matter.
    other = {name: np.where(mask[:, [v]], rows, 1e3) for v, (name, rows) in enumerate(VIEWS.items())}
    found, expected = (predictor.predict_proba({**rows, "mask": mask}) for rows in (other, holes))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    only = {"view1": VIEWS["view1"], "mask": np.tile([False, True], (N, 1))}
    np.testing.assert_array_equal(predictor.predict(only)[:10], predictor.predict({**holes, "mask": mask})[:10])


def test_clusters_do_not_follow_what_is_missing(tmp_path):
    rng = np.random.default_rng(1)
    rows = [1.5 * rng.normal(size=(K, 5))[LABELS] + rng.normal(size=(N, 5)) for _ in range(4)]
    views = {f"view{v}": x.astype(np.float32) for v, x in enumerate(rows)}
    mask = rng.random((N, 4)) < 0.4
    mask[np.arange(N), rng.integers(4, size=N)] = True
    result, _ = trained(tmp_path, {**views, "mask": mask})
    filled = [np.where(m[:, None], x, x[m].mean(0)) for x, m in zip(views.values(), mask.T, strict=True)]
    by_means = KMeans(K, n_init=10, random_state=0).fit_predict(np.concatenate(filled, 1))
    assert result["scores"]["acc"] > 0.95 > 0.9 > metrics.scores(LABELS, by_means)["acc"]


def test_features_of_rows_that_lack_a_view_have_the_centre_of_their_cluster(tmp_path):
    _, predictor = trained(tmp_path, VIEWS)
    whole = predictor.embed(VIEWS)
    np.testing.assert_allclose(whole, np.concatenate([*VIEWS.values()], 1), rtol=1e-6)
    only = {"view1": VIEWS["view1"]}
    expected = predictor.predict_proba(only) @ np.asarray(predictor.variables["centers"]["view0"])
    np.testing.assert_allclose(predictor.embed(only)[:, :4], expected, rtol=1e-4, atol=1e-5)
    mask = np.tile([False, True], (N, 1))
    holes = {"view0": np.full((N, 4), 1e3, np.float32), "view1": VIEWS["view1"], "mask": mask}
    np.testing.assert_allclose(predictor.embed(holes), predictor.embed(only), rtol=1e-5)


def test_one_view_alone(tmp_path):
    other = {**VIEWS, "view0": RNG.normal(size=(N, 4)).astype(np.float32)}
    result, predictor = trained(tmp_path, other, model={"view": 1})
    assert result["scores"]["acc"] == 1 and set(predictor.variables["centers"]) == {"view1"}
    with pytest.raises(UserError, match=r"model\.view is 2: the data have view0, view1"):
        METHODS["kmeans"](Spec(K, N, 1, {"train": 1}), view=2).init(jax.random.key(0), VIEWS)


@pytest.mark.long
def test_equal_views_are_scaled_to_variance_1(tmp_path):
    """A view of noise in large units leads k-means, but not if the views are equal."""
    other = {**VIEWS, "view2": (100 * RNG.normal(size=(N, 2)) + 7).astype(np.float32)}
    plain, _ = trained(tmp_path / "plain", other)
    equal, predictor = trained(tmp_path / "equal", other, model={"equal_views": True})
    assert plain["scores"]["acc"] < 0.7 and equal["scores"]["acc"] > 0.95
    rows = np.concatenate([x / np.sqrt(x.var(0).sum()) for x in other.values()], 1)
    found = KMeans(K, n_init=10, random_state=0).fit(rows)
    assert same(predictor.predict(other), found.labels_)
    np.testing.assert_allclose(float(predictor.variables["spread"]["mean"]), found.inertia_ / N, rtol=1e-4)


@pytest.mark.long
def test_of_several_seeds_the_views_choose(tmp_path):
    result, _ = trained(tmp_path, VIEWS, num_seeds=3, model={"restarts": 1})
    values = [run_["criterion"] for run_ in result["seeds"]["each"]]
    assert result["criterion"] == min(values) < -0.5
