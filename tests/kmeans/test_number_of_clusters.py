"""The number of clusters without labels equals the maximum of scikit-learn's curve; errors have one line."""

import json

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.data.images.folder import synthetic
from clustering_jax.data.planted import planted_embeddings
from clustering_jax.errors import UserError
from clustering_jax.kmeans import number_of_clusters

FOUR = planted_embeddings(120, num_clusters=4, noise=0.3)


def dataset(**features):
    return Dataset(features, row_ids(len(next(iter(features.values())))), None, "toy", "all")


@pytest.mark.parametrize("seed", [0, 3])
def test_the_curve_equals_scikit_learn_and_its_maximum_is_chosen(seed):
    found = number_of_clusters.num_clusters(FOUR, (2, 7), seed=seed)
    rows = FOUR.features["image"]
    expected = [
        [k, silhouette_score(rows, KMeans(k, n_init=4, random_state=seed).fit_predict(rows))] for k in range(2, 8)
    ]
    np.testing.assert_allclose(found["curve"], expected, atol=1e-6)
    assert found["num_clusters"] == 4 == max(expected, key=lambda point: point[1])[0]
    assert found["criterion"] == "mean silhouette of k-means on 120 rows"
    assert json.loads(json.dumps(found)) == found
    assert number_of_clusters.num_clusters(FOUR, (2, 7), seed=seed) == found


def test_views_are_concatenated_without_the_mask():
    rows = FOUR.features["image"]
    views = dataset(view0=rows[:, :5], view1=rows[:, 5:], mask=np.ones((120, 2), bool))
    assert number_of_clusters.num_clusters(views, (3, 5), seed=0) == number_of_clusters.num_clusters(
        FOUR, (3, 5), seed=0
    )


def test_many_rows_are_sampled_by_the_seed(monkeypatch):
    monkeypatch.setattr(number_of_clusters, "SAMPLE", 50)
    found = [number_of_clusters.num_clusters(FOUR, (3, 5), seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert found[0]["criterion"] == "mean silhouette of k-means on 50 rows" and found[0]["num_clusters"] == 4
    with pytest.raises(UserError, match="largest < 50, the number of rows compared"):
        number_of_clusters.num_clusters(FOUR, (3, 50), seed=0)


def test_the_smallest_number_wins_ties(monkeypatch):
    monkeypatch.setattr(number_of_clusters.metrics, "silhouette_samples", lambda *_, **__: np.full(9, 0.25))
    assert number_of_clusters.num_clusters(FOUR, (3, 5), seed=0)["num_clusters"] == 3


@pytest.mark.parametrize("undefined", [2, 3])
def test_a_number_without_a_silhouette_is_not_chosen(monkeypatch, undefined):
    """A sample may have rows of only one of two clusters."""

    def silhouette(_, labels, *, seed):
        k = len(np.unique(labels))
        return None if k == undefined else np.full(9, 0.1 * k)

    monkeypatch.setattr(number_of_clusters.metrics, "silhouette_samples", silhouette)
    found = number_of_clusters.num_clusters(FOUR, (2, 4), seed=0)
    assert found["num_clusters"] == 4 and [k for k, _ in found["curve"]] == [k for k in (2, 3, 4) if k != undefined]


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_equal_rows_are_refused():
    refuses("no number of clusters between 2 and 4 has a silhouette", dataset(image=np.ones((20, 3), np.float32)), 2, 4)


def test_summary_line():
    found = {"num_clusters": 4, "interval": [3, 4], "share": 0.8, "criterion": "c", "curve": [[3, 0.25], [4, 0.5]]}
    expected = "chosen by c; 80 % of the resamples choose it, 80 % choose 3 to 4 (3:0.250 4:0.500)"
    assert number_of_clusters.summary_line(found) == f"num_clusters 4, {expected}"


@pytest.mark.parametrize(("spread", "sure"), [(0.05, True), (3.0, False)])
def test_blobs_that_overlap_leave_doubt(spread, sure):
    rng = np.random.default_rng(1)
    rows = 3 * rng.normal(size=(4, 6))[np.arange(200) % 4] + spread * rng.normal(size=(200, 6))
    found = number_of_clusters.num_clusters(dataset(image=rows.astype(np.float32)), (2, 8), seed=0)
    low, high = found["interval"]
    assert (found["share"] == 1 and low == high == 4) == sure and 0 < found["share"] <= 1


def refuses(expected, data, *ends):
    with pytest.raises(UserError, match=expected) as error:
        number_of_clusters.num_clusters(data, ends, seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ends", [(1, 5), (0, 5), (6, 5), (2, 120), (-3, -2), (2, 5, 9), (4,), ()])
def test_ranges(ends):
    found = ", ".join(map(str, ends))
    refuses(
        rf"cluster_range is \({found}\): choose \(smallest, largest\) with 2 <= smallest <= largest < 120", FOUR, *ends
    )


def test_images_are_refused():
    refuses("needs embeddings or views: set a number for images", synthetic(n=20, size=4), 2, 4)


def test_a_range_of_one():
    assert number_of_clusters.num_clusters(FOUR, (6, 6), seed=0)["num_clusters"] == 6
