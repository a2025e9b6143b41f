"""What is said of each row: against textbook loops, without a run."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from clustering_jax.inference import levels, rows
from clustering_jax.inference.rejection import agreement_of_halves, agreement_of_seeds, rejection, reliability
from clustering_jax.inference.results import assignment_lines
from clustering_jax.inference.rule import Rule

RNG = np.random.default_rng(0)


def points(n=60, d=3, seed=0):
    return rows.unit(np.random.default_rng(seed).normal(size=(n, d)))


def test_the_second_best_cluster():
    column, chance = rows.second_best(np.array([[0.5, 0.1, 0.4], [0.2, 0.2, 0.6]]))
    assert column.tolist() == [2, 0] and chance.tolist() == [0.4, 0.2]


def test_outliers_are_far_from_their_neighbours():
    x = points()
    neighbours = rows.similar_rows(x, 4)
    cosines = rows.cosines(x, neighbours)
    full = x @ x.T - 2 * np.eye(len(x))
    nearest = np.sort(full, axis=1)[:, ::-1][:, :4]
    np.testing.assert_allclose(cosines, nearest, atol=1e-5)
    assert (neighbours != np.arange(len(x))[:, None]).all()
    distance = 1 - nearest.mean(1)
    expected = [(distance <= own + 1e-7).mean() for own in distance]
    np.testing.assert_allclose(rows.outlier_scores(cosines), expected)


def test_few_rows_have_fewer_neighbours():
    assert rows.similar_rows(points(3), 10).shape == (3, 2)


def test_medoids_are_nearest_to_all_of_their_cluster():
    x, clusters = points(), RNG.integers(-1, 3, 60)
    rank = rows.medoids(x, clusters, 2)
    for cluster in range(3):
        own = np.flatnonzero(clusters == cluster)
        best = own[np.argsort(-(x[own] @ x[own].T).sum(1))]
        assert rank[best[0]] == 1 and rank[best[1]] == 2 and (rank[best[2:]] == 0).all()
    assert (rank[clusters < 0] == 0).all()


def test_agreement_of_seeds_ignores_the_numbers_of_clusters():
    own = np.array([0, 0, 1, 1, 2, 2])
    other, third = np.array([2, 2, 0, 0, 1, 0]), np.array([1, 1, 2, 2, 0, 0])
    np.testing.assert_allclose(agreement_of_seeds([other, own, third], 1), [1, 1, 1, 1, 1, 0.5])


@pytest.mark.parametrize("apart, lowest, highest", [(9.0, 1.0, 1.0), (0.0, 0.3, 0.8)])
def test_halves_agree_where_clusters_are_apart(apart, lowest, highest):
    """Three parts of one blob depend on the sample; three blobs do not."""
    rng = np.random.default_rng(0)
    part = np.repeat(np.arange(3), 100)
    rows = rng.normal(size=(300, 4)) + apart * np.eye(4)[part]
    clusters = KMeans(3, n_init=10, random_state=0).fit_predict(rows)
    agreement = agreement_of_halves(rows, clusters)
    assert agreement.shape == (300,) and lowest <= agreement.mean() <= highest
    np.testing.assert_array_equal(agreement, agreement_of_halves(rows, (clusters + 1) % 3))


def test_equal_rows_are_one_cluster():
    assert agreement_of_halves(np.ones((7, 2)), np.array([0, 0, 0, 0, 0, 0, 5])).tolist() == [1] * 6 + [0]


@pytest.mark.parametrize("share", [0.6, 0.75, 0.9, 0.99])
def test_the_share_of_right_rows_is_as_asked(share):
    """Where the second classifier is right as often as the first, more confident rows more often."""
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.3, 1, 20_000)
    right, agreement = (rng.random(20_000) < confidence for _ in range(2))
    found = rejection(confidence, agreement.astype(float), share)
    kept = confidence >= found.threshold
    assert abs(right[kept].mean() - max(share, 0.65)) < 0.02
    assert found.expected == pytest.approx(agreement[kept].mean(), abs=0.01) and found.expected >= share
    # One more row would be too many, unless all are kept.
    assert kept.all() if share < 0.65 else found.expected < share + 0.01


def test_nearly_equal_confidences_are_distinguished():
    """Float32 between which scikit-learn's regression would divide by zero."""
    confidence = np.append(1 - np.arange(20) * 6e-8, np.linspace(0.3, 0.9, 40)).astype(np.float32)
    agreement = (np.arange(60) < 30).astype(float)
    rule = rejection(confidence, agreement, 0.9)
    assert rule.expected >= 0.9 and 0.3 < rule.threshold < 0.9


def test_a_share_out_of_reach_keeps_the_surest():
    confidence, agreement = np.array([0.9, 0.9, 0.8, 0.5]), np.array([1.0, 0.0, 1.0, 0.0])
    found = rejection(confidence, agreement, 0.95)
    assert found.threshold == 0.8 and found.expected == pytest.approx(2 / 3)


def test_rows_of_equal_confidence_stay_together():
    confidence, agreement = np.full(10, 0.7), np.arange(10) % 2 * 1.0
    assert rejection(confidence, agreement, 0.5).threshold == 0.7


def test_reliability_in_groups_of_equal_size():
    groups = reliability(np.arange(100) / 100, np.repeat([0.0, 1.0], 50))
    assert [g["rows"] for g in groups] == [10] * 10
    assert [g["agreement"] for g in groups] == [0] * 5 + [1] * 5 and groups[0]["confidence"] == pytest.approx(0.045)


def test_levels_join_near_clusters():
    centres = np.array([[10, 1, 0], [0, 0, 10], [10, 0, 0], [0, 1, 10], [0, 10, 0]], float)
    clusters = np.repeat([0, 1, 2, 3, 5], 4)
    x = rows.unit(np.repeat(centres, 4, axis=0))
    occupied, links = levels.tree(x, clusters)
    assert occupied.tolist() == [0, 1, 2, 3, 5] and links.shape == (4, 4)
    assert levels.groups(occupied, links, 6, (3,)) == {"3": [0, 1, 0, 1, -1, 2]}


def test_a_rule_rejects_and_adds_columns():
    rule = Rule(0.6, {"2": [0, 1, 1]})
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.1, 0.4], [0.0, 0.1, 0.9]])
    assert rule.clusters(probabilities).tolist() == [0, -1, 2]
    assert rule.columns(probabilities) == {
        "second": ["1", "2", "1"],
        "second_probability": ["0.200000", "0.400000", "0.100000"],
        "level_2": ["0", "-1", "1"],
    }
    names = [["cat"], ["dog", "puppy"], ["bird"]]
    more = {"clusters": rule.clusters(probabilities), "columns": {"typical": ["1", "", ""]}}
    text = "".join(assignment_lines("abc", probabilities, names, header=True, **more))
    assert text.splitlines() == [
        "id,cluster,probability,names,typical",
        "a,0,0.700000,cat,1",
        "b,-1,0.500000,,",
        "c,2,0.900000,bird,",
    ]
