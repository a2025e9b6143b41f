"""Tests properties of every score, and compares the Hungarian matching with brute force."""

import itertools
import math

import numpy as np
import pytest

from clustering_jax import metrics

SYMMETRIC = ("acc", "nmi", "ami", "ari", "fmi")
LOWEST = {"acc": 0.0, "nmi": 0.0, "ami": -1.0, "ari": -0.5, "fmi": 0.0, "purity": 0.0}


def random_labels(seed, n=60, classes=4, clusters=6):
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, n), rng.integers(0, clusters, n)


def brute_force_accuracy(true, pred):
    """Tries every one-to-one assignment of the smaller side to the larger side."""
    classes, clusters = np.unique(true), np.unique(pred)
    small, large = (clusters, classes) if len(clusters) <= len(classes) else (classes, clusters)
    rows, columns = (pred, true) if len(clusters) <= len(classes) else (true, pred)
    counts = []
    for chosen in itertools.permutations(large, len(small)):
        image = dict(zip(small, chosen, strict=True))
        counts.append(sum(image[r] == c for r, c in zip(rows, columns, strict=True)))
    return max(counts) / len(true)


@pytest.mark.parametrize("name", metrics.SCORES)
class TestEveryScore:
    @pytest.mark.parametrize("seed", range(5))
    def test_the_order_of_rows_does_not_matter(self, name, seed):
        true, pred = random_labels(seed)
        order = np.random.default_rng(seed + 100).permutation(len(true))
        score = metrics.SCORES[name]
        assert score(true[order], pred[order]) == pytest.approx(score(true, pred), abs=1e-12)

    @pytest.mark.parametrize(
        "names",
        [np.array([3, 1, 5, 0, 2, 4]), np.array([-7, 900, 3, -1, 0, 12]), np.array(list("qwerty"))],
        ids=["permuted", "gaps and negative", "strings"],
    )
    @pytest.mark.parametrize("side", [0, 1])
    def test_the_numbers_of_labels_do_not_matter(self, name, names, side):
        labels = list(random_labels(1))
        expected = metrics.SCORES[name](*labels)
        labels[side] = names[labels[side]]
        assert metrics.SCORES[name](*labels) == pytest.approx(expected, abs=1e-12)

    def test_a_perfect_match_scores_one(self, name):
        true = random_labels(2)[0]
        assert metrics.SCORES[name](true, 7 - true) == pytest.approx(1)

    @pytest.mark.parametrize("seed", range(5))
    def test_bounds_type_and_not_perfect(self, name, seed):
        value = metrics.SCORES[name](*random_labels(seed))
        assert type(value) is float
        assert LOWEST[name] <= value < 0.9

    def test_symmetry(self, name):
        true, pred = random_labels(3)
        score = metrics.SCORES[name]
        equal = score(true, pred) == pytest.approx(score(pred, true), abs=1e-12)
        assert equal == (name in SYMMETRIC)

    def test_one_cluster(self, name):
        true = np.repeat([0, 1], [30, 10])
        expected = {"acc": 0.75, "purity": 0.75, "nmi": 0, "ami": 0, "ari": 0}
        expected["fmi"] = math.sqrt((30 * 29 + 10 * 9) / (40 * 39))
        assert metrics.SCORES[name](true, np.zeros(40, int)) == pytest.approx(expected[name], abs=1e-12)

    @pytest.mark.parametrize("true, pred", [([0, 1], [0]), ([], []), ([[0, 1]], [[0, 1]]), ([0], [[0]])])
    def test_bad_shapes_name_both(self, name, true, pred):
        with pytest.raises(ValueError) as error:
            metrics.SCORES[name](np.array(true, int), np.array(pred, int))
        assert str(np.shape(true)) in str(error.value)
        assert str(np.shape(pred)) in str(error.value)

    def test_pair_counts_do_not_overflow(self, name):
        """With 200,000 points in 2 classes, the 5e9 pairs within a class exceed int32."""
        true = np.repeat(np.array([0, 1], np.int32), 100_000)
        pred = np.where(np.arange(200_000) % 10 == 0, 1 - true, true).astype(np.int32)
        same = (0.9**2 + 0.1**2) * 100_000 * 200_000 - 200_000
        pairs = 2.0 * 100_000 * 99_999
        expected = {"acc": 0.9, "purity": 0.9, "fmi": same / pairs, "ari": 0.64}
        expected["nmi"] = expected["ami"] = 1 + (0.9 * math.log2(0.9) + 0.1 * math.log2(0.1))
        assert metrics.SCORES[name](true, pred) == pytest.approx(expected[name], abs=1e-4)


@pytest.mark.parametrize("classes, clusters", [(3, 3), (3, 5), (5, 3), (1, 4), (4, 1), (2, 6)])
@pytest.mark.parametrize("seed", range(4))
def test_accuracy_is_the_best_of_all_assignments(classes, clusters, seed):
    true, pred = random_labels(seed, n=25, classes=classes, clusters=clusters)
    assert metrics.accuracy(true, pred) == pytest.approx(brute_force_accuracy(true, pred))


def test_accuracy_when_cluster_zero_is_never_predicted():
    true = np.repeat(np.arange(10), 100)
    pred = np.where(true == 0, 1, true)
    assert metrics.accuracy(true, pred) == pytest.approx(0.9)


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_and_purity_bounds(seed):
    true, pred = random_labels(seed, classes=5, clusters=5)
    acc, purity = metrics.accuracy(true, pred), metrics.purity(true, pred)
    assert 1 / 5 <= acc <= purity


def test_nmi_uses_the_arithmetic_mean():
    true, pred = np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3])
    assert metrics.nmi(true, pred) == pytest.approx(2 * math.log(2) / (math.log(2) + math.log(4)))


@pytest.mark.parametrize("seed", range(3))
def test_match_attains_the_accuracy_one_to_one(seed):
    true, pred = random_labels(seed)
    pairs = metrics.match(true, pred)
    assert len(pairs) == 4 == len(set(pairs.values()))
    assert np.mean([pairs.get(p) == t for t, p in zip(true, pred, strict=True)]) == metrics.accuracy(true, pred)


def test_match_returns_the_given_label_values():
    assert metrics.match(np.array(["cat", "cat", "dog"]), np.array([-3, -3, 8])) == {-3: "cat", 8: "dog"}


def test_scores_has_all_scores():
    true, pred = random_labels(0)
    scores = metrics.scores(true, pred)
    assert list(scores) == ["acc", "nmi", "ami", "ari", "fmi", "purity"]
    assert scores["acc"] == metrics.accuracy(true, pred)


class TestSilhouette:
    def blobs(self, n=40):
        labels = np.arange(n) % 2
        return np.random.default_rng(0).normal(size=(n, 2, 3)) + 4 * labels[:, None, None], labels

    def test_textbook(self):
        features, labels = self.blobs()
        rows = features.reshape(len(labels), -1)
        values = []
        for i in range(len(rows)):
            distance = np.sqrt(((rows - rows[i]) ** 2).sum(1))
            own = labels == labels[i]
            inner, outer = distance[own].sum() / (own.sum() - 1), distance[~own].mean()
            values.append((outer - inner) / max(outer, inner))
        assert metrics.silhouette(features, labels) == pytest.approx(np.mean(values))

    def test_sample_is_drawn_by_the_seed(self):
        features, labels = self.blobs(200)
        first, again, other = (metrics.silhouette(features, labels, sample=50, seed=s) for s in (0, 0, 1))
        assert first == again != other
        assert first == pytest.approx(metrics.silhouette(features, labels), abs=0.1)

    @pytest.mark.parametrize("labels", [np.zeros(6, int), np.arange(6)], ids=["one cluster", "all alone"])
    def test_an_undefined_silhouette_is_nan(self, labels):
        assert math.isnan(metrics.silhouette(np.eye(6), labels))

    @pytest.mark.parametrize("n", [0, 5])
    def test_bad_shapes(self, n):
        with pytest.raises(ValueError, match=rf"\({n}, 2\).*\(0,\)"):
            metrics.silhouette(np.zeros((n, 2)), np.zeros(0, int))


class TestLabelFree:
    def test_sizes_count_empty_clusters(self):
        sizes = metrics.cluster_sizes(np.array([0, 3, 3]), 5)
        assert sizes.tolist() == [1, 0, 0, 2, 0]
        assert sizes.dtype == np.int64
        assert metrics.occupied([0, 3, 3], 5) == 2

    @pytest.mark.parametrize("labels", [[5], [-1], [[0, 1]]])
    def test_labels_out_of_range(self, labels):
        with pytest.raises(ValueError, match="must be"):
            metrics.cluster_sizes(np.array(labels), 5)

    def test_confidence_and_entropy(self):
        p = np.array([[1.0, 0, 0], [0, 0.5, 0.5]], np.float32)
        assert metrics.mean_confidence(p) == pytest.approx(0.75)
        assert metrics.assignment_entropy(p) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))

    @pytest.mark.parametrize("p, expected", [(np.eye(4), math.log(4)), (np.eye(4)[[2] * 5], 0.0)])
    def test_entropy_extremes(self, p, expected):
        assert metrics.assignment_entropy(p) == pytest.approx(expected, abs=1e-12)
        assert metrics.mean_confidence(p) == 1

    @pytest.mark.parametrize("function", [metrics.mean_confidence, metrics.assignment_entropy])
    @pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 2, 2)])
    def test_bad_shapes(self, function, shape):
        with pytest.raises(ValueError, match="soft assignments"):
            function(np.zeros(shape))
