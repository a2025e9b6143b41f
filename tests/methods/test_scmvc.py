"""SCMVC: its losses against a textbook loop, missing views, the centres of k-means, and runs that are resumed."""

import json
import shutil
from functools import cache

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
from clustering_jax.methods import scmvc as method
from clustering_jax.settings import scmvc
from clustering_jax.settings.scmvc import SCMVC
from tests.losses.test_fusion import contrast_loop, weights_loop
from tests.methods import views_toy as toy

KEY, K, N, VIEWS = jax.random.key(3), toy.CLUSTERS, 16, 3
SMALL = {"hidden": (7,), "latent_dim": 6, "feature_dim": 5, "fusion_dim": 8}
SMALL |= {"reconstruction_epochs": 1, "kmeans_restarts": 2}
SETTINGS = SCMVC()._replace(**SMALL)
METHOD = method.build(Spec(K, 8, 1, {"train": 5}), **SMALL)
LOSSES = {phase.name: phase.objectives[0].loss for phase in METHOD.phases}
VARIABLES = jax.jit(METHOD.init)(KEY, toy.features(N))


def outputs(batch):
    names = [f"view{v}" for v in range(VIEWS)]
    found = method.Network(SETTINGS).apply({"params": VARIABLES["params"]}, batch, names, decode=True)
    return jax.tree.map(lambda x: np.asarray(x, np.float64), found)


@cache
def value_and_grads(stage):
    def loss(params, batch):
        return LOSSES[stage]({**VARIABLES, "params": params}, batch, KEY)[0]

    return jax.jit(jax.value_and_grad(loss))


@pytest.mark.parametrize("missing", [False, True])
def test_the_losses_are_the_textbook_loop_over_the_rows_that_have_a_view(missing):
    batch = toy.features(N, missing=missing)
    found, mask = outputs(batch), batch.get("mask", np.ones((N, VIEWS), bool))
    np.testing.assert_allclose(np.linalg.norm(np.stack([found.fused, *found.r]), axis=2), 1, rtol=1e-5)
    rows = [mask[:, v] for v in range(VIEWS)]
    errors = [((batch[f"view{v}"] - found.x[v])[rows[v]] ** 2).mean() for v in range(VIEWS)]
    each = [contrast_loop(found.fused[rows[v]], found.r[v][rows[v]]) for v in range(VIEWS)]
    expected = weights_loop(found.fused, found.r, mask) @ each
    value, (_, terms) = LOSSES["contrast"](VARIABLES, batch, KEY)
    assert float(terms["contrast"]) == pytest.approx(expected, rel=1e-5)
    assert float(value) == pytest.approx(expected + sum(errors), rel=1e-5)
    assert float(LOSSES["reconstruct"](VARIABLES, batch, KEY)[0]) == pytest.approx(sum(errors), rel=1e-5)


@pytest.mark.parametrize("stage", ["reconstruct", "contrast"])
def test_the_values_of_a_missing_view_do_not_matter(stage):
    batch = toy.features(N, missing=True)
    noise = {f"view{v}": np.random.default_rng(v).normal(size=(N, d)) * 1e3 for v, d in enumerate(toy.WIDTHS)}
    other = {k: np.where(batch["mask"][:, [int(k[-1])]], batch[k], x).astype(np.float32) for k, x in noise.items()}
    one, two = (value_and_grads(stage)(VARIABLES["params"], {**batch, **x}) for x in ({}, other))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(np.abs(a).max(), 1e-3))
    np.testing.assert_allclose(*(METHOD.embed(VARIABLES, {**batch, **x}) for x in ({}, other)), atol=1e-5)


def test_a_view_that_a_batch_lacks_is_missing_in_all_rows():
    batch = toy.features(N)
    some = {name: batch[name] for name in ("view0", "view2")}
    masked = {**batch, "mask": np.ones((N, VIEWS), bool) & (np.arange(VIEWS) != 1)}
    np.testing.assert_allclose(METHOD.embed(VARIABLES, some), METHOD.embed(VARIABLES, masked), atol=1e-6)
    centers = VARIABLES["clusters"] | {"centers": np.asarray(METHOD.embed(VARIABLES, batch)[:K])}
    none = {**batch, "mask": np.zeros((N, VIEWS), bool)}
    np.testing.assert_allclose(METHOD.predict({**VARIABLES, "clusters": centers}, none), 1 / K)


def test_the_weights_carry_no_gradient_and_reconstruction_does_not_train_the_fusion():
    grads = value_and_grads("reconstruct")(VARIABLES["params"], toy.features(N))[1]
    assert not any(np.any(x) for part in ("fusion", "shared_head") for x in jax.tree.leaves(grads[part]))
    grads = value_and_grads("contrast")(VARIABLES["params"], toy.features(N))[1]
    assert all(np.any(x) for x in jax.tree.leaves(grads))


def trained(workdir, features, **changes):
    labels = np.random.default_rng(0).integers(K, size=len(features["view0"]))  # as `toy.features` draws them
    dataset = Dataset(features, row_ids(len(labels)), labels, "views", "all")
    changes = {"batch_size": 8, "epochs": 4, "run": {"log_every": 1, "checkpoint_every": 1, "keep": 99}, **changes}
    config = scmvc(num_clusters=K, model=SMALL, **changes).to_dict()
    return run.train(config, workdir, streams={"train": dataset}, quiet=True, reported=False)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.long
def test_a_run_keeps_the_centres_of_k_means_on_the_fused_features(tmp_path, missing):
    features = toy.features(missing=missing)
    # A decay of the weights must not change the network in the last stage.
    optimizer = {"learning_rate": 1e-2, "decoupled_decay": 0.1}
    result = trained(tmp_path, features, epochs=30, optimizer=optimizer)
    assert result["scores"]["acc"] > (0.8 if missing else 0.95)
    predictor = Predictor.restore(tmp_path)
    fused = np.asarray(predictor.embed(features))
    found = KMeans(K, n_init=20, random_state=0).fit(fused)
    labels = predictor.predict(features)
    assert adjusted_rand_score(labels, found.labels_) == 1
    centers = np.stack([fused[labels == c].mean(0) for c in range(K)])
    np.testing.assert_allclose(predictor.variables["clusters"]["centers"], centers, atol=1e-5)
    squares = ((fused[:, None] - centers) ** 2).sum(2)
    logits = -squares / squares.min(1).mean()
    expected = np.exp(logits - logits.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(predictor.predict_proba(features), expected, atol=1e-3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run. Steps 1 to 5 reconstruct, 6 to 25 contrast, and step 26 keeps the centres."""
    workdir = tmp_path_factory.mktemp("scmvc") / "whole"
    trained(workdir, toy.features(missing=True))
    return workdir


@pytest.mark.parametrize("left", [5, 15, 25])
@pytest.mark.long
def test_a_run_that_goes_on_from_an_earlier_checkpoint_ends_with_the_same_bits(whole, tmp_path, left):
    one, other = whole, tmp_path / "part"
    shutil.copytree(one, other)
    (other / "result.json").unlink()
    steps = {int(p.name): p for p in (other / "checkpoints").iterdir() if p.name.isdigit()}
    assert left in steps
    for step in (step for step in steps if step > left):
        shutil.rmtree(steps[step])
    trained(other, toy.features(missing=True))
    assert (one / "assignments.csv").read_bytes() == (other / "assignments.csv").read_bytes()
    leaves = [jax.tree.leaves(Predictor.restore(path).variables) for path in (one, other)]
    assert all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))
    phases = [json.loads(line).get("phase") for line in (other / "metrics.jsonl").read_text().splitlines()]
    assert [p for p in phases if p] == ["reconstruct"] * 5 + ["contrast"] * 20 + ["k-means"]


@pytest.mark.long
def test_of_several_seeds_the_views_choose(tmp_path):
    result = trained(tmp_path, toy.features(), num_seeds=2)
    values = [each["criterion"] for each in result["seeds"]["each"]]
    assert result["criterion"] == min(values) < 0 and len({*values}) == 2


@pytest.mark.parametrize("changes", [{"latent_dim": 0}, {"temperature": 0.0}, {"kmeans_restarts": 0}, {"latent": 3}])
def test_wrong_settings_are_refused(changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        method.build(Spec(K, 8, 1, {"train": 5}), **changes)
