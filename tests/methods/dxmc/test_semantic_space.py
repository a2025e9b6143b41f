"""Compares the semantic space with plain NumPy: centres, selected nouns, counterparts in text, names of clusters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.kmeans.lloyd import _kmeans, kmeans
from clustering_jax.kmeans.neighbours import _search
from clustering_jax.methods.dxmc import semantic_space as dxmc_space
from clustering_jax.methods.dxmc.semantic_space import (
    _nearest_center,
    characteristic_nouns,
    retrieve,
    select_nouns,
    semantic_centers,
)

KEY = jax.random.key(0)
# Images, nouns, columns, centres. The last case has more rows than a block, and not a multiple of a block.
SIZES = {"small": (40, 30, 8, 5), "middle": (300, 200, 16, 30), "blocks": (4999, 5001, 8, 20)}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def space(size, seed=0):
    """Images, nouns and centres of norm 1."""
    n, m, d, count = SIZES[size]
    rng = np.random.default_rng(seed)
    return tuple(unit(rng.normal(size=(rows, d))).astype(np.float32) for rows in (n, m, count))


# --- By hand


def selected(centers, nouns, per_center):
    similarity = nouns.astype(np.float64) @ centers.astype(np.float64).T
    probability, own = softmax(similarity, 1), similarity.argmax(1)
    kept = []
    for center in range(len(centers)):
        members = [i for i in range(len(nouns)) if own[i] == center]
        kept += sorted(members, key=lambda i: -probability[i, center])[:per_center]
    return kept


def retrieved(image, nouns, temperature):
    weights = softmax(image.astype(np.float64) @ nouns.astype(np.float64).T / temperature, 1)
    return weights, unit(weights @ nouns)


# --- Centres


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.long
def test_centers_are_the_normalised_means_of_their_members(size):
    image, _, centers = space(size)
    count = len(centers)
    found = semantic_centers(KEY, image, count, restarts=2)
    labels = np.asarray(kmeans(KEY, image, count, restarts=2, max_iter=300, spherical=True).labels)
    expected = unit(np.stack([image[labels == c].astype(np.float64).sum(0) for c in range(count)]))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.long
def test_centers_find_the_classes():
    rng = np.random.default_rng(1)
    classes = np.arange(60) % 3
    image = unit(np.eye(3, 5)[classes] + 0.1 * rng.normal(size=(60, 5))).astype(np.float32)
    found = np.asarray(semantic_centers(KEY, image, 3))
    expected = unit(np.stack([image[classes == c].sum(0) for c in range(3)]))
    np.testing.assert_allclose(found[found[:, :3].argmax(1).argsort()], expected, atol=1e-5)


@pytest.mark.long
def test_more_centers_than_distinct_rows():
    """An empty cluster keeps a direction, and no center is NaN."""
    image = np.eye(2, 4, dtype=np.float32)[np.arange(20) % 2]
    found = np.asarray(semantic_centers(KEY, image, 5, restarts=2))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    assert {tuple(row) for row in np.round(found, 5)} <= {(1, 0, 0, 0), (0, 1, 0, 0)}


# --- Nouns


@pytest.mark.parametrize("per_center", [1, 5, 10_000])
@pytest.mark.parametrize("size", SIZES)
def test_selected_nouns(size, per_center):
    _, nouns, centers = space(size)
    found = select_nouns(centers, nouns, per_center)
    assert found.tolist() == selected(centers, nouns, per_center)
    assert per_center < 10_000 or sorted(found) == list(range(len(nouns)))


@pytest.mark.parametrize("per_center", [1, 3, 7])
def test_the_first_noun_and_the_first_center_win_ties(per_center):
    """The values are multiples of 1/8, so sums are exact in any order, and equal nouns stay equal."""
    rng = np.random.default_rng(3)
    nouns = rng.choice([-0.5, 0.5], (150, 4)).astype(np.float32)
    centers = (rng.integers(-8, 9, (6, 4)) / 8).astype(np.float32)
    centers = centers[[0, 1, 2, 1, 3, 4, 5, 0]]
    found = select_nouns(centers, nouns, per_center)
    assert found.tolist() == selected(centers, nouns, per_center)
    own = (nouns @ centers.T).argmax(1)
    assert not np.isin(own[found], (3, 7)).any()


def test_the_probability_is_computed_over_the_centers():
    """A noun that is equally near to another centre is dropped. A softmax over the nouns would select it."""
    centers = np.array([[1, 0], [0.6, 0.8]], np.float32)
    nouns = np.array([unit(np.array([1.0, 0.45])), unit(np.array([1.0, -0.6]))], np.float32)
    similarity = nouns @ centers.T
    assert similarity[0, 0] > similarity[1, 0] and (similarity.argmax(1) == 0).all()
    assert select_nouns(centers, nouns, 1).tolist() == [1]


# --- Counterparts


@pytest.mark.parametrize("temperature", [0.005, 0.1])
@pytest.mark.parametrize("size", SIZES)
def test_counterparts(size, temperature):
    image, nouns, _ = space(size)
    nouns = nouns[:60]
    found = retrieve(image, nouns, temperature=temperature)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, retrieved(image, nouns, temperature)[1], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_equal_images_have_equal_counterparts_and_one_noun_is_all():
    image, nouns, _ = space("small")
    twice = retrieve(np.concatenate([image, image[::-1]]), nouns)
    np.testing.assert_allclose(twice[40:], twice[:40][::-1], atol=1e-6)
    np.testing.assert_allclose(retrieve(image, nouns[:1]), np.tile(nouns[:1], (40, 1)), atol=1e-6)


def test_a_duplicated_noun_counts_twice():
    image, nouns, _ = space("small")
    doubled = np.concatenate([nouns, nouns[:1]])
    np.testing.assert_allclose(retrieve(image, doubled, temperature=0.1), retrieved(image, doubled, 0.1)[1], atol=1e-5)
    once, twice = (np.asarray(retrieve(image, rows, temperature=0.1)) for rows in (nouns, doubled))
    assert ((twice - once) @ nouns[0]).min() > 0


# --- Names


def named(image, nouns, labels, k, count, temperature):
    weights = retrieved(image, nouns, temperature)[0]
    overall, names = weights.mean(0) + dxmc_space.SMOOTHING, []
    for cluster in range(k):
        members = weights[labels == cluster]
        ratio = (members.mean(0) + dxmc_space.SMOOTHING) / overall if len(members) else np.zeros(len(nouns))
        order = sorted(range(len(nouns)), key=lambda i: -ratio[i])[:count]
        names.append([i for i in order if ratio[i] > 1])
    return names


@pytest.mark.parametrize("size, k, count", [("small", 4, 3), ("middle", 10, 5), ("blocks", 7, 5)])
def test_names(size, k, count):
    image, nouns, _ = space(size)
    nouns, labels = nouns[:50], np.random.default_rng(2).integers(k - 1, size=len(image))
    found = characteristic_nouns(image, nouns, labels, k, count=count, temperature=0.05)
    assert found == named(image, nouns, labels, k, count, 0.05)
    assert found[-1] == [] and all(0 < len(row) <= count for row in found[:-1])


def test_names_are_nouns_more_likely_than_overall_but_not_rare_nouns():
    """Noun 0 is near class 0, 1 near class 1, 2 near both, 3 far from all, and 4 near a single image of class 1."""
    directions = np.eye(6, dtype=np.float32)
    labels = np.arange(400) % 2
    image = directions[labels] + directions[2]
    image[1] = directions[4]
    nouns = directions[[0, 1, 2, 3, 4]]
    found = characteristic_nouns(unit(image), nouns, labels, 3)
    assert found[0][0] == 0 and 1 not in found[0] and found[1] == [1, 4] and found[2] == []


def test_a_single_cluster_has_no_names():
    image, nouns, _ = space("small")
    assert characteristic_nouns(image, nouns, np.zeros(40, int), 2) == [[], []]


# --- ImageNet-1k: 1,281,167 images, 4,271 centres, 82,115 nouns, 512 columns

IMAGES, CENTERS, WORDS, KEPT = ((n, 512) for n in (1_281_167, 4_271, 82_115, 5 * 4_271))
KMEANS = {"k": CENTERS[0], "restarts": 10, "max_iter": 300, "spherical": True, "block": 2048}
PLANS = {
    "centres": (_kmeans, (KEY, IMAGES, 1e-4), KMEANS),
    "nouns": (_nearest_center, (CENTERS, WORDS), {}),
    "counterparts": (retrieve, (IMAGES, KEPT), {}),
    "neighbours": (_search, (IMAGES,), {"k": 50, "block": 512, "columns": 65536}),
}


@pytest.mark.parametrize("name", PLANS)
def test_imagenet_needs_8_gib_in_addition_to_the_data(name):
    """The memory comes from the compiled programs, which are not run."""
    function, shapes, options = PLANS[name]
    arrays = [jax.ShapeDtypeStruct(s, jnp.float32) if isinstance(s, tuple) else s for s in shapes]
    plan = function.lower(*arrays, **options).compile().memory_analysis()
    assert plan.temp_size_in_bytes + plan.output_size_in_bytes < 8 * 2**30
