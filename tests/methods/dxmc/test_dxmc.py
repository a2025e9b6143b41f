"""Tests DXMC: the loss of a step, gradients of the heads, preparation, draws of neighbours, and small runs."""

from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax import run
from clustering_jax.data.base import Dataset, Vocabulary, partner_rows, row_ids
from clustering_jax.data.planted import planted_embeddings
from clustering_jax.errors import UserError
from clustering_jax.inference.predictor import Predictor
from clustering_jax.kmeans import kmeans
from clustering_jax.kmeans.neighbours import nearest_neighbours
from clustering_jax.method import Spec
from clustering_jax.methods import METHODS
from clustering_jax.methods.dxmc import method as dxmc
from clustering_jax.methods.dxmc.semantic_space import retrieve, select_nouns, semantic_centers
from clustering_jax.parallel import data_mesh
from clustering_jax.settings import dxmc as config_of
from clustering_jax.training import update
from clustering_jax.training.batches import Feed
from clustering_jax.training.signals import Interrupted
from tests.losses.test_contrastive import cluster_contrast_loop, nt_xent_loop, softmax
from tests.nn.test_resnet import AS_USERS
from tests.test_run import checksums, metrics
from tests.training.test_loop import interrupt_at

N, D, K = 16, 6, 3
KEY = jax.random.key(7)
SPEC = Spec(K, N, 2, {"train": 3})
SMALL = {"hidden": 12, "instance_dim": 10, "centers": 5, "neighbours": 4, "center_restarts": 2}


def build(spec=SPEC, **settings):
    return METHODS["dxmc"](spec, **{**SMALL, **settings})


def batch_of(seed=0):
    """A batch of unit rows of both modalities and of their partners."""
    rows = np.random.default_rng(seed).normal(size=(4, N, D))
    names = ("image", "text", "image_partner", "text_partner")
    rows = dict(zip(names, unit(rows).astype(np.float32), strict=True))
    return {**rows, "index": np.arange(N, dtype=np.int32)}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@cache
def starting(scale=0.5):
    """Variables far from the symmetric initial values, with other running statistics."""
    rng, variables = np.random.default_rng(1), build().init(KEY, batch_of())
    moved = jax.tree.map(lambda x: (x + scale * rng.normal(size=x.shape)).astype(np.float32), variables)
    statistics = jax.tree.map(lambda x: (0.5 + rng.random(x.shape)).astype(np.float32), variables["batch_stats"])
    return {**moved, "batch_stats": statistics}


# --- The loss by hand


def linear(p, x):
    return x @ np.asarray(p["kernel"], np.float64) + p["bias"]


def cluster_head(variables, modality, x, statistics=None):
    """Returns assignments, and the mean and biased variance that normalise them: given ones, or those of the batch."""
    p = variables["params"][f"cluster_{modality}"]
    h = linear(p["linear_0"], x)
    mean, var = (h.mean(0), h.var(0)) if statistics is None else statistics
    h = (h - mean) / np.sqrt(var + 1e-5) * p["bn_1"]["scale"] + p["bn_1"]["bias"]
    return softmax(linear(p["linear_3"], np.maximum(h, 0))), mean, var


def instance_head(variables, modality, x):
    p = variables["params"][f"instance_{modality}"]
    return linear(p["linear_2"], np.maximum(linear(p["linear_0"], x), 0))


def entropy(c):
    mean = c.mean(0)
    return -sum(m * np.log(max(m, 1e-9)) for m in mean)


def loss_by_hand(variables, batch, cluster=0.5, instance=0.05, weight=5.0, normalized=False, consistent=False):
    c = {name: cluster_head(variables, name.split("_")[0], x)[0] for name, x in batch.items() if name != "index"}
    value = cluster_contrast_loop(c["image"], c["text_partner"], cluster)
    value += cluster_contrast_loop(c["text"], c["image_partner"], cluster)
    if consistent:
        value -= np.mean([np.log(t @ i) for t, i in zip(c["text"], c["image"], strict=True)])
    else:
        g = [instance_head(variables, m, batch[m]) for m in ("text", "image")]
        value += nt_xent_loop(*map(unit, g), instance) if normalized else nt_xent_loop(*g, instance)
    return value - weight * (entropy(c["text"]) + entropy(c["image"]))


SWITCHES = {
    "as published": ({}, {}),
    "larger sets": (
        {"cluster_temperature": 5.0, "instance_temperature": 0.5},
        {"cluster": 5.0, "instance": 0.5},
    ),
    "instances at norm 1": ({"normalized_instance": True}, {"normalized": True}),
    "TAC": ({"consistent": True}, {"consistent": True}),
    "no balance": ({"entropy_weight": 0.0}, {"weight": 0.0}),
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_loss_of_a_step(switch):
    """The loss of this package has log k - entropy, so it differs by a constant."""
    settings, options = SWITCHES[switch]
    loss, batch, variables = build(**settings).phases[0].objectives[0].loss, batch_of(), starting()
    # exp overflows in the plain loop if instances that are not normalised are large.
    variables = {**variables, "params": jax.tree.map(lambda x: 0.3 * x, variables["params"])}
    value, (_, terms) = jax.jit(loss)(variables, batch, KEY)
    expected = loss_by_hand(variables, batch, **options) + 2 * options.get("weight", 5.0) * np.log(K)
    assert value == pytest.approx(expected, rel=2e-5)
    names = {"cluster", "imbalance", "consistency" if settings.get("consistent") else "instance"}
    assert value == pytest.approx(sum(float(terms[name]) for name in names), rel=1e-6)
    assert set(terms) == names | {"occupied", "entropy"}


def test_running_statistics_are_updated_twice_per_step():
    """The rows update the statistics first, then their partners. The variances are unbiased."""
    batch, variables = batch_of(), starting()
    _, (changed, _) = jax.jit(build().phases[0].objectives[0].loss)(variables, batch, KEY)
    for modality in ("text", "image"):
        before = variables["batch_stats"][f"cluster_{modality}"]["bn_1"]
        mean, var = before["mean"], before["var"]
        for name in (modality, f"{modality}_partner"):
            _, batch_mean, batch_var = cluster_head(variables, modality, batch[name])
            mean = 0.9 * mean + 0.1 * batch_mean
            var = 0.9 * var + 0.1 * batch_var * N / (N - 1)
        after = changed["batch_stats"][f"cluster_{modality}"]["bn_1"]
        np.testing.assert_allclose(after["mean"], mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(after["var"], var, rtol=1e-4, atol=1e-6)


def test_rows_and_partners_have_separate_batch_statistics():
    """Other partners do not change the assignments of the rows, so the balance term does not depend on partners."""
    loss = jax.jit(build().phases[0].objectives[0].loss)
    batch, far = batch_of(), {**batch_of()}
    far |= {name: 3 + 2 * far[name] for name in ("image_partner", "text_partner")}
    terms, far_terms = (loss(starting(), b, KEY)[1][1] for b in (batch, far))
    assert terms["imbalance"] == far_terms["imbalance"] and terms["instance"] == far_terms["instance"]


def gradients(variables, **settings):
    loss = build(**settings).phases[0].objectives[0].loss
    grad = jax.jit(jax.grad(lambda p: loss({**variables, "params": p}, batch_of(), KEY)[0]))
    return jax.device_get(grad(variables["params"]))


def heads(tree, kind):
    return {name: part for name, part in tree.items() if name.startswith(kind)}


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.long
def test_instance_heads_have_no_influence_on_the_cluster_heads():
    variables = starting()
    changed = {**variables["params"], **jax.tree.map(lambda x: -0.2 * x, heads(variables["params"], "instance"))}
    found, other = gradients(variables), gradients({**variables, "params": changed})
    assert_equal(heads(found, "cluster"), heads(other, "cluster"))
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (found, other)), strict=True))
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(heads(found, "instance")))


def test_instance_heads_do_not_learn_without_their_loss():
    found = gradients(starting(), consistent=True)
    assert not any(x.any() for x in jax.tree.leaves(heads(found, "instance")))
    # A bias before batch norm has no effect.
    assert all(
        np.abs(x).max() > 1e-4 for x in jax.tree.leaves([c["linear_3"] for c in heads(found, "cluster").values()])
    )


def test_prediction_uses_only_the_image_cluster_head_with_running_statistics():
    method, variables, batch = build(), starting(), batch_of()
    broken = jax.tree.map(lambda x: np.full_like(x, np.nan), variables)
    for collection in variables:
        broken[collection]["cluster_image"] = variables[collection]["cluster_image"]
    found = jax.jit(method.predict)(broken, {"image": batch["image"]})
    statistics = variables["batch_stats"]["cluster_image"]["bn_1"]
    expected, *_ = cluster_head(variables, "image", batch["image"], (statistics["mean"], statistics["var"]))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(method.predict(broken, {"image": batch["image"][:1]}), expected[:1], rtol=1e-4)


def test_embedding_is_the_image_instance_head():
    batch = batch_of()
    found = build().embed(starting(), {"image": batch["image"]})
    np.testing.assert_allclose(found, instance_head(starting(), "image", batch["image"]), rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_initial_weights():
    variables = METHODS["dxmc"](SPEC).init(KEY, {"image": np.ones((2, 100), np.float32)})
    for name, head in variables["params"].items():
        for layer in (part for part in head if part.startswith("linear")):
            kernel, bias = np.asarray(head[layer]["kernel"]), np.asarray(head[layer]["bias"])
            bound = len(kernel) ** -0.5
            assert np.abs(bias).max() <= bound and (len(bias) == K or np.abs(bias).max() > 0.95 * bound)
            if name.startswith("cluster"):
                # There are at least 1,536 numbers, which give the standard deviation up to 2 %.
                assert kernel.std() == pytest.approx(0.02, rel=0.08) and np.abs(kernel).max() > 0.05
                assert abs(kernel.mean()) < 0.002
            else:
                assert 0.99 * bound < np.abs(kernel).max() <= bound
                assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    shapes = jax.tree.map(np.shape, variables["params"])
    assert shapes["cluster_image"]["linear_0"]["kernel"] == (100, 512)
    assert shapes["cluster_text"]["linear_3"]["kernel"] == (512, K)
    assert shapes["instance_text"]["linear_2"]["kernel"] == (512, 1024)
    different = [heads(variables["params"], kind) for kind in ("cluster", "instance")]
    for pair in different:
        text, image = (part["linear_0"]["kernel"] for part in pair.values())
        assert (text != image).any()


# --- Preparation

PLANTED = planted_embeddings(60, num_clusters=K, width=D, num_nouns=40)


@pytest.mark.parametrize("seed, key", [(0, jax.random.key(0)), (9, jax.random.key(9)), (-1, KEY)], ids=[0, 9, -1])
@pytest.mark.long
def test_preparation_computes_nouns_counterparts_and_neighbours(tmp_path, seed, key):
    """The space has its own seed; -1 selects the seed of the run."""
    found = build(retrieval_temperature=0.02, space_seed=seed).prepare(KEY, PLANTED, tmp_path)
    image, words = PLANTED.features["image"], PLANTED.vocabulary
    kept = select_nouns(semantic_centers(key, jnp.asarray(image), 5, restarts=2), words.embeddings, 5)
    assert found.vocabulary.words == [words.words[i] for i in kept] and 5 <= len(kept) <= 25
    np.testing.assert_array_equal(found.vocabulary.embeddings, words.embeddings[kept])
    assert set(found.features) == {"image", "text"}
    np.testing.assert_array_equal(found.features["image"], image)
    text = retrieve(image, words.embeddings[kept], temperature=0.02)
    np.testing.assert_array_equal(found.features["text"], text)
    np.testing.assert_allclose(np.linalg.norm(found.features["text"], axis=1), 1, rtol=1e-5)
    for name, rows in found.partners.items():
        assert rows.shape == (60, 4) and rows.dtype == np.int32
        assert not (rows == np.arange(60)[:, None]).any()
        np.testing.assert_array_equal(rows, nearest_neighbours(found.features[name], 4))
    assert found.labels is PLANTED.labels and found.ids == PLANTED.ids


@pytest.mark.long
def test_fewer_rows_than_neighbours(tmp_path):
    found = build(neighbours=50, centers=0).prepare(KEY, planted_embeddings(12, num_clusters=K, width=D), tmp_path)
    assert all(rows.shape == (12, 11) for rows in found.partners.values())
    assert all(sorted(row) == sorted(set(range(12)) - {i}) for i, row in enumerate(found.partners["image"]))


@pytest.mark.long
def test_an_interrupted_preparation_resumes(tmp_path, monkeypatch):
    calls = []

    def failing(rows, k):
        calls.append(k)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return nearest_neighbours(rows, k)

    whole = build().prepare(KEY, PLANTED, tmp_path / "whole")
    monkeypatch.setattr(dxmc, "nearest_neighbours", failing)
    with pytest.raises(KeyboardInterrupt):
        build().prepare(KEY, PLANTED, tmp_path / "cut")
    assert len(list((tmp_path / "cut").iterdir())) == 2
    monkeypatch.setattr(dxmc, "semantic_centers", None)
    resumed = build().prepare(KEY, PLANTED, tmp_path / "cut")
    assert len(calls) == 3
    assert_equal((resumed.features, dict(resumed.partners)), (whole.features, dict(whole.partners)))
    build().prepare(KEY, PLANTED, tmp_path / "cut")
    assert len(calls) == 3


@pytest.mark.parametrize(
    "settings, anew",
    [
        ({"retrieval_temperature": 0.1}, ["text"]),
        ({"neighbours": 3}, ["image", "text"]),
        ({"nouns_per_center": 1}, ["nouns", "text"]),
        ({"cluster_temperature": 1.0}, []),
    ],
    ids=str,
)
def test_only_results_that_a_setting_changes_are_computed_again(tmp_path, settings, anew):
    build().prepare(KEY, PLANTED, tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    build(**settings).prepare(KEY, PLANTED, tmp_path)
    new = {path.name for path in tmp_path.iterdir()} - before
    assert sorted(name.split("-")[0].removesuffix("_neighbours") for name in new) == anew


# Rows, clusters and the published M, if the rule gives it.
RULE = [(50_000, 10, 167), (50_000, 20, 167), (13_000, 10, 43), (19_500, 15, 65), (3760, 47, 141), (9537, 101, 303)]
RULE += [(1_281_167, 1000, 4271), (20, 10, 20)]


@pytest.mark.parametrize("n, k, expected", RULE)
def test_the_rule_for_the_number_of_centers(n, k, expected):
    assert dxmc._center_count(0, n, k) == expected


@pytest.mark.parametrize("centers, expected", [(0, 9), (1, 1), (60, 60)])
def test_the_number_of_centers_is_used(tmp_path, monkeypatch, centers, expected):
    asked = []
    monkeypatch.setattr(dxmc, "_kept_nouns", lambda key, image, nouns, count, *_: asked.append(count) or np.arange(3))
    build(centers=centers).prepare(KEY, PLANTED, tmp_path)
    assert asked == [expected]


@pytest.mark.long
def test_the_report(tmp_path):
    """Names come from the training clusters. Baselines use the scored rows if enough of them have labels."""
    prepared, scored = build(centers=0).prepare(KEY, PLANTED, tmp_path), planted_embeddings(30, num_clusters=K, width=D)
    found = build().report(KEY, prepared, PLANTED.labels, scored)
    assert [{name.split("_")[0] for name in names} for names in found.names] == [{f"class{c}"} for c in range(K)]
    text = retrieve(scored.features["image"], prepared.vocabulary.embeddings)
    expected = {
        "k-means on image": scored.features["image"],
        "k-means on [image; text]": np.concatenate([scored.features["image"], text], 1),
    }
    for name, rows in expected.items():
        labels = kmeans(KEY, rows, K, restarts=20, spherical=True).labels
        np.testing.assert_array_equal(found.baselines[name], labels)
    assert set(found.baselines) == set(expected)
    few = {"features": {"image": scored.features["image"][: K - 1]}, "labels": scored.labels[: K - 1]}
    for changes in ({"labels": None}, few):
        other = build().report(KEY, prepared, PLANTED.labels, scored._replace(**changes))
        assert not other.baselines and other.names == found.names


def test_images_can_replace_nouns(tmp_path):
    image = PLANTED.features["image"]
    named = PLANTED._replace(vocabulary=Vocabulary(PLANTED.ids, image))
    expected = build().prepare(KEY, named, tmp_path / "named")
    for given in (PLANTED, PLANTED._replace(vocabulary=None)):
        found = build(words="images").prepare(KEY, given, tmp_path / "images")
        assert found.vocabulary.words == expected.vocabulary.words
        np.testing.assert_array_equal(found.features["text"], expected.features["text"])


def refuses(expected, function):
    with pytest.raises(UserError, match=expected) as error:
        function()
    assert "\n" not in str(error.value)


def test_preparation_refuses(tmp_path):
    refuses("model.centers is 61: choose between 1 .* 60", lambda: build(centers=61).prepare(KEY, PLANTED, tmp_path))
    refuses("model.centers is -1", lambda: build(centers=-1).prepare(KEY, PLANTED, tmp_path))
    without = PLANTED._replace(vocabulary=None)
    refuses("'planted embeddings' has no embeddings of nouns", lambda: build().prepare(KEY, without, tmp_path))
    assert not list(tmp_path.iterdir())


ERRORS = {
    **{
        name: ({name: 0}, f"model.{name} is 0: choose a number above 0")
        for name in ("nouns_per_center", "center_restarts", "neighbours", "hidden", "instance_dim")
    },
    **{
        name: ({name: value}, f"model.{name} is {value}: choose a number above 0")
        for name in ("retrieval_temperature", "cluster_temperature", "instance_temperature")
        for value in (0.0, -1.0, float("nan"))
    },
    "optimizer": ({"optimizer": {"learning_rat": 1}}, "did you mean 'learning_rate'"),
}


@pytest.mark.parametrize("error", ERRORS)
def test_errors(error):
    settings, message = ERRORS[error]
    refuses(message, lambda: build(**settings))


# --- Batches with partners


def with_partners(n=40, m=6, seed=0):
    rng = np.random.default_rng(seed)
    features = {name: rng.normal(size=(n, 3)).astype(np.float32) for name in ("image", "text")}
    partners = {name: rng.integers(0, n, (n, m)).astype(np.int32) for name in features}
    return Dataset(features, row_ids(n), None, "toy", "all", partners=partners)


def test_partners_are_drawn_from_all_neighbours_of_a_row():
    index = np.arange(40, dtype=np.int32)[::-1]
    partners = {name: 100 * np.arange(40)[:, None] + np.arange(6) for name in ("image", "text")}
    drawn = [partner_rows(3, step, index, partners) for step in range(200)]
    for name in partners:
        found = np.stack([rows[name] for rows in drawn])
        assert (found // 100 == index).all()
        # With 8,000 draws, each of the six neighbours is drawn 1,333 +- 33 times.
        assert np.abs(np.bincount((found % 100).ravel(), minlength=6) - 8000 / 6).max() < 5 * 34
    same = np.mean([rows["image"] == rows["text"] for rows in drawn])
    assert abs(same - 1 / 6) < 0.03


def feed_of(limit, seeds=(5,)):
    return Feed({"train": with_partners()}, seed_list=seeds, batch_size=8, mesh=data_mesh(8), limit=limit)


def test_draws_depend_only_on_the_seed_and_the_step():
    """The draws do not depend on the start or length of a loop, or on whether the data is on the device."""
    phase = build().phases[0]
    whole = feed_of(1 << 30)(phase, 0, 16, {}, 16)[2]
    assert set(whole) == {"index", "image", "text"}
    partners = with_partners().partners
    for step in range(16):
        single = feed_of(1 << 30)(phase, step, 1, {}, 3)[2]
        data, _, streamed, _, _ = feed_of(0)(phase, step, 1, {}, 1)
        for name, rows in whole.items():
            np.testing.assert_array_equal(single[name], np.stack([rows[step]] * 3))
            np.testing.assert_array_equal(streamed[name][0], rows[step])
        for name, rows in partners.items():
            assert all(p in rows[i] for i, p in zip(whole["index"][step], whole[name][step], strict=True))
            features = with_partners().features[name]
            np.testing.assert_array_equal(data[name], features[whole["index"][step]])
            np.testing.assert_array_equal(data[f"{name}_partner"], features[whole[name][step]])
    # The second epoch has other draws, and so have other seeds.
    order = [np.argsort(whole["index"][first : first + 5].ravel()) for first in (0, 5)]
    drawn = [whole["image"][first : first + 5].ravel()[o] for first, o in zip((0, 5), order, strict=True)]
    assert (drawn[0] != drawn[1]).any()
    both = feed_of(1 << 30, seeds=(5, 6))(phase, 0, 16, {}, 16)[2]
    other = feed_of(1 << 30, seeds=(6,))(phase, 0, 16, {}, 16)[2]
    for name, rows in both.items():
        np.testing.assert_array_equal(rows, np.stack([whole[name], other[name]], 1))
    assert (other["text"] != whole["text"]).any()


# --- Whole runs


def config(**changes):
    """A config with four steps per epoch."""
    model = {"hidden": 64, "instance_dim": 16, "neighbours": 10, "center_restarts": 2}
    changes = {"seed": 3, "model": {**model, **changes.pop("model", {})}, **changes}
    settings = {"num_clusters": 5, "batch_size": 64, "epochs": 30, "data": PLANTED_DATA, **changes}
    settings["run"] = {"evaluate_every": 0, "checkpoint_every": 0, "log_every": 8, **changes.get("run", {})}
    return config_of(**settings).to_dict()


PLANTED_DATA = {"source": "planted_embeddings", "n": 260, "num_clusters": 5, "width": 16, "num_nouns": 60}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A complete run."""
    workdir = tmp_path_factory.mktemp("run") / "whole"
    return workdir, run.train(config(), workdir)


@pytest.mark.long
def test_a_small_run_finds_the_classes_and_names_them(finished):
    workdir, result = finished
    assert result["scores"]["acc"] > 0.9
    lines = [line for line in metrics(workdir) if "loss" in line]
    assert {"cluster", "instance", "imbalance", "occupied", "entropy"} <= set(lines[0]) and lines[-1]["step"] == 120
    for names in result["names"]:
        assert len({name.split("_")[0] for name in names}) == 1
    assert {names[0].split("_")[0] for names in result["names"]} == {f"class{c}" for c in range(5)}


@pytest.mark.long
def test_an_interrupted_run_ends_bitwise_equal(finished, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(61, patch)
        with pytest.raises(Interrupted, match="is saved"):
            run.train(config(), tmp_path / "cut")
    monkeypatch.setattr(dxmc, "nearest_neighbours", None)  # the results of the preparation are stored
    result = run.train(config(), tmp_path / "cut")
    assert checksums(tmp_path / "cut") == checksums(finished[0])
    texts = [(Path(workdir) / "assignments.csv").read_text() for workdir in (tmp_path / "cut", finished[0])]
    assert texts[0] == texts[1] and result["names"] == finished[1]["names"]


@pytest.mark.long
def test_data_that_stays_on_the_host_trains_the_same(tmp_path, monkeypatch):
    """Uses the compiler options of users, because Adam follows rounding errors for a bias whose gradient is 0."""
    as_users = partial(jax.jit, compiler_options=AS_USERS)
    monkeypatch.setattr(update, "jax", SimpleNamespace(**{**vars(jax), "jit": as_users}))
    found = []
    for gib in (1.0, 1e-9):
        run.train(config(epochs=3, run={"resident_gib": gib}), tmp_path / str(gib))
        found.append(Predictor.restore(tmp_path / str(gib)).variables)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found)


@pytest.mark.slow
def test_two_seeds_side_by_side(finished, tmp_path):
    """The first seed equals a single run, and the seed with the smallest criterion is kept."""
    result = run.train(config(num_seeds=2), tmp_path / "two")
    each = result["seeds"]["each"]
    assert [row["seed"] for row in each] == [3, 4]
    assert each[0]["criterion"] == pytest.approx(finished[1]["criterion"], abs=0.02)
    assert each[0]["acc"] == pytest.approx(finished[1]["scores"]["acc"], abs=0.02)
    kept = min(each, key=lambda row: row["criterion"])
    assert (result["seed"], result["criterion"]) == (kept["seed"], kept["criterion"])
    assert result["scores"]["acc"] == kept["acc"] and -np.log(5) <= kept["criterion"] <= 0


def test_the_criterion_is_the_mutual_information_of_the_modalities():
    """It is log k for equal, balanced assignments, and 0 if the text head is constant."""
    image = np.repeat(np.eye(K), 4, 0).astype(np.float32)

    def infer_of(text):
        return lambda function, variables: np.stack([text, image], 1)

    criterion = build().criterion
    assert criterion(KEY, None, infer_of(image)) == pytest.approx(-np.log(K))
    assert criterion(KEY, None, infer_of(image[:, [1, 2, 0]])) == pytest.approx(-np.log(K))
    assert criterion(KEY, None, infer_of(np.ones_like(image))) == pytest.approx(0)


def test_the_criterion_uses_both_heads():
    batch, seen = batch_of(), []

    def infer(function, variables):
        seen.append(np.asarray(function(variables, batch)))
        return seen[0]

    build().criterion(KEY, starting(), infer)
    for i, m in enumerate(("text", "image")):
        statistics = starting()["batch_stats"][f"cluster_{m}"]["bn_1"]
        expected, *_ = cluster_head(starting(), m, batch[m], (statistics["mean"], statistics["var"]))
        np.testing.assert_allclose(seen[0][:, i], expected, rtol=1e-4, atol=1e-6)
