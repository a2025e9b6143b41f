"""Tests the phases after CC: their training rows and the rows that they draw."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax import run
from clustering_jax.augment.policies import cc_policy
from clustering_jax.data.images.folder import synthetic
from clustering_jax.errors import UserError
from clustering_jax.methods.cc.boost import boost_labels, died, most_confident
from clustering_jax.methods.cc.refine import Model, check_refine, refine_phases
from clustering_jax.settings.cc import CC, cc
from clustering_jax.training.signals import Interrupted
from clustering_jax.training.update import draw_partners
from tests.training.test_loop import interrupt_at

SIZE, K = 8, 3
IMAGES = synthetic(n=12, size=SIZE, num_clusters=K).features["image"]
BATCH = {"image": jnp.asarray(IMAGES), "image_partner": jnp.asarray(IMAGES[::-1].copy()), "index": jnp.arange(12)}
KEY = jax.random.key(0)


def forward(variables, images):
    """A linear softmax classifier whose only collection counts the passes."""
    logits = images.reshape(*images.shape[:-3], -1) @ variables["params"]["w"]
    return (logits, jax.nn.softmax(logits)), {"passes": variables["passes"] + 1}


def embed(variables, batch):
    return jnp.asarray(batch["image"], jnp.float32).reshape(len(batch["image"]), -1)


def predict(variables, batch):
    return forward(variables, jnp.asarray(batch["image"], jnp.float32) / 255)[0][1]


def phases(**settings):
    return refine_phases(CC(**settings), Model(forward, embed, predict, cc_policy(SIZE)), steps=2)


def infer(function, variables):
    return np.asarray(function(variables, BATCH))


def start(scale=1.0):
    w = scale * np.random.default_rng(0).normal(size=(SIZE * SIZE * IMAGES.shape[-1], K)).astype(np.float32)
    return {"params": {"w": jnp.asarray(w)}, "passes": jnp.zeros(())}


def test_phases_have_the_order_of_the_setting():
    names = [phase.name for phase in phases(refine="selflabel, scan", scan_epochs=3, selflabel_epochs=5)]
    assert names == ["selflabel", "scan"]
    assert [phase.num_steps for phase in phases(refine="scan,selflabel", scan_epochs=3, selflabel_epochs=5)] == [6, 10]
    assert phases() == ()


def test_an_unknown_phase_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"'scann'.*scan"):
        check_refine(CC(refine="scann"))


@pytest.mark.parametrize(
    "setting", [{"boost_share": 1.5}, {"refine_share": 1.1}, {"boost_threshold": 1.0}, {"selflabel_threshold": -0.1}]
)
def test_a_number_out_of_range_is_named(setting):
    with pytest.raises(UserError, match=f"model.{next(iter(setting))}"):
        check_refine(CC(**setting))


@pytest.mark.long
def test_scan_draws_near_rows_and_passes_both_views():
    (phase,) = phases(refine="scan", scan_neighbours=4)
    targets = phase.targets(KEY, start(), infer)
    neighbours = targets[phase.partners]
    assert neighbours.shape == (12, 5) and (neighbours[:, 0] == np.arange(12)).all()
    value, (changed, terms) = phase.objectives[0].loss(start(), BATCH, KEY)
    assert changed["passes"] == 2
    np.testing.assert_allclose(value, terms["consistency"] + 5 * terms["imbalance"], rtol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize(("scale", "share", "confident"), [(0.0, 0.0, 0.0), (20.0, 0.0, 1.0), (0.0, 0.75, 0.25)])
def test_selflabel_learns_only_from_confident_rows(scale, share, confident):
    (phase,) = phases(refine="selflabel", refine_share=share)
    batch = {**BATCH, **phase.targets(KEY, start(scale), infer)}
    (value, (_, terms)), gradient = jax.value_and_grad(
        lambda variables: phase.objectives[0].loss(variables, batch, KEY), has_aux=True
    )(start(scale))
    assert abs(terms["confident"] - confident) < 0.2
    assert (value > 0) == np.asarray(gradient["params"]["w"]).any() == (confident > 0)


def test_partners_depend_only_on_the_row_number():
    data = {"image": jnp.arange(10.0)}
    partners = jnp.asarray(np.random.default_rng(0).integers(0, 10, (10, 4)))
    whole = draw_partners(data, partners, jnp.arange(10), KEY)["image_partner"]
    part = draw_partners(data, partners[3:5], jnp.arange(3, 5), KEY)["image_partner"]
    np.testing.assert_array_equal(whole[3:5], part)
    assert all(whole[i] in partners[i] for i in range(10))
    other = draw_partners(data, partners, jnp.arange(10), jax.random.key(1))["image_partner"]
    assert (np.asarray(whole) != np.asarray(other)).any()


def authors_labels(p, present, share, threshold):
    """Steps a) and b) of TCL as plain loops over the rows."""
    n, k = p.shape
    labels = list(present)
    for cluster in range(k):
        members = sorted((i for i in range(n) if p[i].argmax() == cluster), key=lambda i: -p[i].max())
        for i in members[: int(np.ceil(share * n / k))]:
            if labels[i] == -1:
                labels[i] = cluster
    return [-1 if p[i].max() < threshold else labels[i] for i in range(n)]


def assignments(n=60, k=4, sharp=4.0, seed=0):
    p = np.exp(sharp * np.random.default_rng(seed).normal(size=(n, k)))
    return (p / p.sum(1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("threshold", [0.0, 0.7, 0.99])
def test_boost_labels_equal_the_plain_loops(share, threshold):
    present = np.random.default_rng(1).integers(-1, 4, 60)
    for before in (np.full(60, -1), present):
        labels = boost_labels(assignments(), before, share=share, threshold=threshold)
        np.testing.assert_array_equal(labels, authors_labels(assignments(), before, share, threshold))


def test_boost_labels_respect_the_quota_and_the_threshold():
    p = assignments()
    p[:40] = p[0]  # one cluster has most of the rows
    labels = boost_labels(p, np.full(60, -1), share=0.5, threshold=0.6)
    assert np.bincount(labels[labels >= 0]).max() == 8  # ceil(.5 * 60 / 4)
    assert (labels[p.max(1) < 0.6] == -1).all()
    assert (boost_labels(np.full((6, 3), 1 / 3), np.full(6, -1), share=1.0, threshold=0.99) == -1).all()


@pytest.mark.parametrize("least", [0.1, 0.5])
def test_every_cluster_keeps_its_most_confident_rows(least):
    p = assignments()
    unsure = boost_labels(p, np.full(60, -1), share=0.1, threshold=1.0, least=least)
    for cluster in range(4):
        members = np.flatnonzero(p.argmax(1) == cluster)
        first = members[np.argsort(-p[members].max(1), kind="stable")][: int(np.ceil(least * 15))]
        assert sorted(np.flatnonzero(unsure == cluster)) == sorted(first)
    np.testing.assert_array_equal(most_confident(p, least), unsure >= 0)
    assert not most_confident(p, 0).any() and most_confident(p, 4).all()


@pytest.mark.parametrize("name", ["scan", "selflabel", "boost"])
@pytest.mark.long
def test_the_statistics_can_be_of_plain_images_alone(name):
    def seen(variables, images):
        outputs, _ = forward(variables, images)
        return outputs, {"seen": images.mean((0, *range(1, images.ndim)))}

    model = Model(seen, embed, predict, cc_policy(SIZE))
    plain, published = (
        refine_phases(CC(refine=name, scan_neighbours=3, refine_plain_statistics=value), model, steps=2)[0]
        for value in (True, False)
    )
    batch = {**BATCH, **plain.targets(KEY, start(), infer)}
    found, other = (phase.objectives[0].loss(start(), batch, KEY) for phase in (plain, published))
    np.testing.assert_allclose(found[1][0]["seen"], IMAGES.mean() / 255, rtol=1e-5)
    assert abs(other[1][0]["seen"] - found[1][0]["seen"]) > 1e-3
    np.testing.assert_allclose(found[0], other[0], rtol=1e-6)


def test_a_row_keeps_its_label_until_its_confidence_is_low():
    p, present = np.array([[0.999, 0.001], [0.6, 0.4], [0.001, 0.999]], np.float32), np.array([1, 1, -1])
    assert boost_labels(p, present, share=1.0, threshold=0.99).tolist() == [1, -1, 1]


@pytest.mark.long
def test_boost_without_labels_is_only_contrast():
    (phase,) = phases(refine="boost")
    targets = phase.targets(KEY, start(0.0), infer)
    assert (targets["pseudo"] == -1).all()
    value, (changed, terms) = phase.objectives[0].loss(start(), {**BATCH, **targets}, KEY)
    assert terms["self_label"] == 0 and terms["labelled"] == 0 and changed["passes"] == 1
    np.testing.assert_allclose(value, terms["instance"])


@pytest.mark.long
def test_boost_learns_from_its_labels():
    (phase,) = phases(refine="boost")
    targets = phase.targets(KEY, start(100.0), infer)
    labelled = targets["pseudo"] >= 0
    assert labelled.any()
    loss = phase.objectives[0].loss
    (value, (_, terms)), gradient = jax.value_and_grad(lambda v: loss(v, {**BATCH, **targets}, KEY), has_aux=True)(
        start()
    )
    assert terms["self_label"] > 0 and np.asarray(gradient["params"]["w"]).any()
    np.testing.assert_allclose(value, terms["instance"] + terms["self_label"], rtol=1e-6)
    again = phase.refresh.update(KEY, start(100.0), infer, targets)
    assert (again["pseudo"][labelled] == targets["pseudo"][labelled]).all()


@pytest.mark.parametrize("name", ["scan", "selflabel", "boost"])
@pytest.mark.parametrize("stop", [False, True])
def test_a_dead_cluster_is_reported_and_can_end_the_phase(name, stop):
    (phase,) = phases(refine=name, refine_stop=stop, scan_neighbours=3)
    assert phase.refresh.every == 2
    present = {**phase.targets(KEY, start(), infer), "cluster": np.arange(12) % K}
    one = start()
    one["params"]["w"] = one["params"]["w"].at[:, 1].set(-1e3)
    with pytest.warns(UserWarning, match=f"cluster 1 has lost all its images in the phase '{name}'"):
        targets = phase.refresh.update(KEY, one, infer, present)
    assert (targets is None) == stop


def test_died():
    assert died(np.array([0, 1, 2]), np.array([0, 0, 3])) == [1, 2]
    assert died(np.array([0, 0]), np.array([0, 1])) == []


def small_run():
    """Two steps of CC and four of each phase after it, two in an epoch."""
    lengths = {f"{name}_epochs": 2 for name in ("scan", "selflabel", "boost")}
    model = {"backbone": "resnet18", "stem": "small", "width": 4, "image_size": SIZE, "boost_threshold": 0.1, **lengths}
    return cc(
        num_clusters=K,
        batch_size=8,
        epochs=1,
        data={"source": "synthetic", "n": 16, "size": SIZE, "num_clusters": K},
        model={**model, "refine": "scan,selflabel,boost", "scan_neighbours": 3, "selflabel_threshold": 0.1},
        run={"log_every": 1, "evaluate_every": 0, "checkpoint_every": 0},
    ).to_dict()


@pytest.mark.slow
def test_a_run_interrupted_in_any_phase_ends_bitwise_equal(tmp_path, monkeypatch):
    result = run.train(small_run(), tmp_path / "whole", quiet=True)
    assert "knn_accuracy" in result["scores"]
    log = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in log] == ["contrast"] * 2 + ["scan"] * 4 + ["selflabel"] * 4 + ["boost"] * 4
    assert all(line["labelled"] > 0 for line in log if line["phase"] == "boost")
    for at in (3, 8, 12):
        with monkeypatch.context() as patch:
            interrupt_at(at, patch)
            with pytest.raises(Interrupted, match="is saved"):
                run.train(small_run(), tmp_path / str(at), quiet=True)
        run.train(small_run(), tmp_path / str(at), quiet=True)
        for name in ("assignments.csv", "metrics.jsonl"):
            ours, expected = ((tmp_path / folder / name).read_text() for folder in (str(at), "whole"))
            if name == "metrics.jsonl":
                ours, expected = (re.sub(r'"(images_per_second|seal)": [^,}]*', "", text) for text in (ours, expected))
            assert ours == expected
