"""Tests the scores of the features by their nearest neighbours."""

import numpy as np
import pytest

from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.inference import features
from clustering_jax.inference.features import feature_scores, rows_to_compare, with_feature_scores
from clustering_jax.inference.results import table


def dataset(n=60, labels=True, unknown=0):
    classes = np.arange(n) % 3
    rows = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32) + 6 * np.eye(3, 4, dtype=np.float32)[classes]
    known = np.where(np.arange(n) < unknown, -1, classes) if labels else None
    return Dataset({"x": rows}, row_ids(n), known, "toy", "all")


def embed(batch):
    return batch["x"]


def scores(data):
    return feature_scores(embed, data, np.arange(data.num_examples) % 3, np.zeros((0, 0)))


def test_good_features_and_labels():
    found, compared = scores(dataset())
    assert found["knn_accuracy"] == 1 and found["knn_consistency"] > 0.9
    assert compared == "20 nearest of all rows, by cosine, leave one out"


def test_features_without_classes_are_near_chance():
    data = dataset(300)
    noise = {"x": np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32)}
    found, _ = scores(data._replace(features=noise))
    assert 0.2 < found["knn_accuracy"] < 0.5 and 0.25 < found["knn_consistency"] < 0.42


def test_without_labels_there_is_only_the_consistency():
    assert set(scores(dataset(labels=False))[0]) == {"knn_consistency"}


def test_rows_without_a_class_are_left_out_and_counted():
    data = dataset(unknown=10)
    np.testing.assert_array_equal(rows_to_compare(data), np.arange(10, 60))
    found, compared = scores(data)
    assert found["knn_accuracy"] == 1 and "50 of 60 rows" in compared


def test_many_rows_are_sampled(monkeypatch):
    monkeypatch.setattr(features, "ROWS", 40)
    rows = rows_to_compare(dataset())
    assert len(set(rows.tolist())) == 40 and (np.diff(rows) > 0).all()
    assert "20 nearest of 40 of 60 rows" in scores(dataset())[1]


@pytest.mark.parametrize("n, neighbours", [(1, None), (2, 1), (15, 14)])
def test_few_rows(n, neighbours):
    found, compared = scores(dataset(n))
    assert (found == {}) == (neighbours is None)
    assert compared.startswith(f"{neighbours} nearest") or not found


@pytest.mark.parametrize("labels", [False, True])
def test_the_result_and_the_table_have_the_scores(labels):
    plain = {"occupied": 3, "smallest": 1, "largest": 9, "confidence": 0.9}
    result = {"method": "cc", "seed": 0, "wall_time_seconds": 1.0, "baselines": [], "scores": plain}
    result["protocol"] = {"trained_on": "a", "scored_on": "b", "labels": "none"}
    found = with_feature_scores(result, embed, dataset(labels=labels), np.arange(60) % 3, np.zeros((0, 0)))
    assert plain.items() <= found["scores"].items() and result["scores"] == plain
    assert "(20 nearest of all rows, by cosine, leave one out)" in table(found)
    assert ("accuracy of their vote 1.000" in table(found)) == labels
    assert "neighbours" not in table(result)
