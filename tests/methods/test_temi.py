"""Compares the loss of TEMI with a NumPy loop; tests the teacher, the weights of pairs, and a small run."""

import warnings
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import erf

from clustering_jax import run
from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.errors import UserError
from clustering_jax.kmeans.neighbours import nearest_neighbours
from clustering_jax.method import Spec
from clustering_jax.methods import METHODS
from clustering_jax.methods.temi import head_losses, pair_weights
from clustering_jax.settings import temi as config_of

N, D, K, H = 10, 5, 4, 3
STEPS = 2
SMALL = {"heads": H, "hidden": 8, "width": 6, "neighbours": 4}
KEY = jax.random.key(5)


def build(spec=None, **settings):
    return METHODS["temi"](spec or Spec(K, N, 3, {"train": STEPS}), **{**SMALL, **settings})


def loss_of(method):
    return method.phases[0].objectives[0].loss


def batch_of(seed=0):
    rng = np.random.default_rng(seed)
    pair = {name: rng.normal(size=(N, D)).astype(np.float32) for name in ("image", "image_partner")}
    return {**pair, "index": np.arange(N, dtype=np.int32)}


@cache
def variables_of(steps=3, scale=True):
    """Variables in the middle of a run, with a student and a teacher that differ."""
    variables, rng = build(scale=scale).init(KEY, batch_of()), np.random.default_rng(1)

    def moved(x):
        return (x + 0.7 * rng.normal(size=x.shape)).astype(np.float32)

    params, teacher = (jax.tree.map(moved, variables["params"]) for _ in range(2))
    progress = {
        "steps": np.float32(steps),
        "loss": rng.normal(size=H).astype(np.float32),
        "mean": rng.dirichlet(np.ones(K), H).astype(np.float32),
    }
    return {**variables, "params": params, "teacher": teacher, "progress": progress}


# --- Textbook loops


def softmax(row):
    e = np.exp(row - row.max())
    return e / e.sum()


def head_by_hand(params, h, x):
    """Features and logits of one row in head `h`."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf[h], np.float64), dict(params))
    hidden = x @ p["linear_0"]["kernel"] + p["linear_0"]["bias"]
    hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
    features = hidden @ p["linear_1"]["kernel"] + p["linear_1"]["bias"]
    features /= np.linalg.norm(features)
    kernel, scale = p["last_kernel"], p["last_scale"]
    return features, np.array([scale[c] * features @ kernel[:, c] / np.linalg.norm(kernel[:, c]) for c in range(K)])


def assignments_by_hand(params, rows, temperature=0.1):
    return np.array([[softmax(head_by_hand(params, h, x)[1] / temperature) for x in rows] for h in range(H)])


def losses_loop(students, teachers, mean, beta):
    """The two sides are pairs of [heads, n, k] probabilities."""
    heads, n, k = students[0].shape
    losses, weights = np.zeros(heads), np.zeros(n)
    for i in range(n):
        weights[i] = sum(teachers[0][h, i] @ teachers[1][h, i] for h in range(heads)) / heads
        for h in range(heads):
            for s, t in ((students[0], teachers[1]), (students[1], teachers[0])):
                value = -np.log(sum((s[h, i, c] * t[h, i, c]) ** beta / mean[h, c] for c in range(k)))
                losses[h] += weights[i] * value / (2 * n)
    return losses, weights


def probabilities(seed=2, heads=H):
    rng = np.random.default_rng(seed)
    pairs = rng.dirichlet(np.ones(K), (4, heads, N))
    return (pairs[0], pairs[1]), (pairs[2], pairs[3]), rng.dirichlet(np.ones(K), heads)


def logs(pair):
    return tuple(np.log(np.maximum(x, 1e-30)).astype(np.float32) for x in pair)


@pytest.mark.parametrize("beta", [0.6, 1.0])
def test_the_losses_of_the_heads(beta):
    students, teachers, mean = probabilities()
    found = head_losses(logs(students), logs(teachers), mean.astype(np.float32), beta)
    for ours, theirs in zip(found, losses_loop(students, teachers, mean, beta), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5)


@pytest.mark.long
def test_the_gradient_by_finite_differences():
    """The gradient is for the logits of the students."""
    rng, (_, teachers, mean) = np.random.default_rng(3), probabilities()
    logits, direction = rng.normal(size=(2, 2, H, N, K))

    def ours(logits):
        students = tuple(jax.nn.log_softmax(side) for side in logits)
        return head_losses(students, logs(teachers), jnp.asarray(mean, jnp.float32), 0.6)[0].sum()

    def theirs(logits):
        students = tuple(np.apply_along_axis(softmax, -1, side) for side in logits)
        return losses_loop(students, teachers, mean, 0.6)[0].sum()

    slope = np.sum(np.asarray(jax.grad(ours)(jnp.asarray(logits, jnp.float32))) * direction)
    ends = [theirs(logits + sign * 1e-5 * direction) for sign in (1, -1)]
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3)


def one_hot(clusters):
    return np.tile(np.eye(K)[clusters], (H, 1, 1))


SAME, NEXT = np.arange(N) % K, (np.arange(N) + 1) % K


def test_equal_pairs_have_weight_1_and_disjoint_pairs_0():
    np.testing.assert_array_equal(pair_weights(one_hot(SAME), one_hot(SAME)), np.ones(N))
    np.testing.assert_array_equal(pair_weights(one_hot(SAME), one_hot(NEXT)), np.zeros(N))


def test_equal_one_hot_pairs_have_information_log_k():
    """beta = 1, p = 1/K."""
    pair = logs((one_hot(SAME), one_hot(SAME)))
    losses, _ = head_losses(pair, pair, np.full((H, K), 1 / K, np.float32), 1.0)
    np.testing.assert_allclose(losses, -np.log(K), rtol=1e-5)


def test_swapping_the_sides_changes_nothing():
    students, teachers, mean = probabilities()
    both = [
        head_losses(logs(s), logs(t), mean, 0.6) for s, t in ((students, teachers), (students[::-1], teachers[::-1]))
    ]
    for a, b in zip(*both, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_an_empty_cluster_gives_a_finite_loss_and_gradient():
    _, _, mean = probabilities()
    mean[:, 0] = 0
    pair = logs((one_hot(SAME), one_hot(SAME)))
    value, gradient = jax.value_and_grad(lambda p: head_losses(p, pair, jnp.asarray(mean), 0.6)[0].sum())(pair)
    assert np.isfinite(value) and all(np.isfinite(x).all() for x in gradient)


# --- A step


def step_by_hand(variables, batch, scaled=True):
    """Losses of the heads, weights, running means and teacher of a step."""
    scale = D**0.5 / np.linalg.norm(batch["image"], axis=1).mean() if scaled else 1.0
    teacher = jax.tree.map(lambda t, s: 0.996 * t + 0.004 * s, variables["teacher"], variables["params"])
    pair = [scale * np.asarray(batch[name], np.float64) for name in ("image", "image_partner")]
    teachers, students = ([assignments_by_hand(p, rows) for rows in pair] for p in (teacher, variables["params"]))
    both = np.mean([t.mean(1) for t in teachers], axis=0)
    mean = 0.9 * variables["progress"]["mean"] + 0.1 * both
    return *losses_loop(students, teachers, mean, 0.6), mean, teacher


@pytest.mark.parametrize("scaled", [True, False])
def test_the_loss_of_a_step(scaled):
    variables, batch = variables_of(scale=scaled), batch_of(1)
    value, (changed, terms) = jax.jit(loss_of(build(scale=scaled)))(variables, batch, KEY)
    losses, weights, mean, teacher = step_by_hand(variables, batch, scaled)
    assert value == pytest.approx(losses.mean(), rel=1e-4) and terms["information"] == value
    assert terms["best_head"] == pytest.approx(losses.min(), rel=1e-4)
    assert terms["pair_weight"] == pytest.approx(weights.mean(), rel=1e-4)
    np.testing.assert_allclose(changed["progress"]["mean"], mean, rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), changed["teacher"], teacher)
    assert ("norms" in changed) == scaled


def test_the_loss_of_a_head_is_its_mean_over_the_steps_of_the_epoch():
    """Step 3 is the second of its epoch, step 4 the first of the next one."""
    batch, loss = batch_of(1), jax.jit(loss_of(build()))
    losses = step_by_hand(variables_of(), batch)[0]
    before = variables_of()["progress"]["loss"]
    for steps, expected in ((3, (before + losses) / 2), (4, losses)):
        progress = {**variables_of()["progress"], "steps": np.float32(steps)}
        changed = loss({**variables_of(), "progress": progress}, batch, KEY)[1][0]["progress"]
        np.testing.assert_allclose(changed["loss"], expected, rtol=1e-4)
        assert changed["steps"] == steps + 1


@pytest.mark.parametrize("steps, frozen", [(0, True), (STEPS - 1, True), (STEPS, False)])
def test_the_last_layer_has_no_gradient_in_the_first_epoch(steps, frozen):
    variables = {**variables_of(), "progress": {**variables_of()["progress"], "steps": np.float32(steps)}}
    gradient = jax.jit(jax.grad(lambda p: loss_of(build())({**variables, "params": p}, batch_of(1), KEY)[0]))(
        variables["params"]
    )
    assert all((not np.any(gradient[name])) == frozen for name in ("last_kernel", "last_scale"))
    assert all(np.any(x) for x in jax.tree.leaves([gradient["linear_0"], gradient["linear_1"]]))


def test_the_teacher_of_the_best_head_predicts():
    method, variables, batch = build(), variables_of(), batch_of(1)
    loss = np.array([0.3, -1.0, 0.2], np.float32)
    norm = np.float32(1.7)
    variables = {
        **variables,
        "params": jax.tree.map(lambda x: np.full_like(x, np.nan), variables["params"]),
        "progress": {**variables["progress"], "loss": loss},
        "norms": {"steps": np.float32(3), "image": norm},
    }
    rows = D**0.5 / norm * batch["image"].astype(np.float64)
    by_hand = [head_by_hand(variables["teacher"], 1, x) for x in rows]
    np.testing.assert_allclose(
        method.predict(variables, batch), [softmax(logits / 0.1) for _, logits in by_hand], rtol=1e-3, atol=1e-6
    )
    np.testing.assert_allclose(method.embed(variables, batch), [f for f, _ in by_hand], rtol=1e-3, atol=1e-5)
    assert method.criterion(KEY, variables, None) == -1.0


@pytest.mark.long
def test_initial_weights():
    method = METHODS["temi"](Spec(30, 64, 1, {"train": 1}))
    variables = method.init(KEY, {"image": np.ones((2, 100), np.float32)})
    params = variables["params"]
    shapes = jax.tree.map(np.shape, params)
    assert shapes["linear_0"]["kernel"] == (16, 100, 512) and shapes["linear_1"]["kernel"] == (16, 512, 256)
    assert shapes["last_kernel"] == (16, 256, 30) and shapes["last_scale"] == (16, 30)
    for layer in ("linear_0", "linear_1"):
        assert np.std(params[layer]["kernel"]) == pytest.approx(0.02, rel=0.02) and not np.any(params[layer]["bias"])
    assert np.std(params["last_kernel"]) == pytest.approx(0.02, rel=0.02) and np.all(params["last_scale"] == 1)
    assert not np.array_equal(params["last_kernel"][0], params["last_kernel"][1])
    jax.tree.map(np.testing.assert_array_equal, params, variables["teacher"])
    np.testing.assert_allclose(variables["progress"]["mean"], 1 / 30, rtol=1e-6)


@pytest.mark.parametrize("settings, rates", [({}, [0.0, 0.25, 0.5]), ({"optimizer": {"warmup_steps": 2}}, [0, 0.5, 1])])
def test_the_warm_up(settings, rates):
    """The warm-up has two epochs of two steps, unless the optimiser sets it. Adam's first steps equal the rate."""
    optimizer = {"learning_rate": 1.0, **settings.get("optimizer", {})}
    tx = build(warmup_epochs=2, optimizer=optimizer).phases[0].objectives[0].tx
    params = {"bias": jnp.zeros(())}
    state = tx.init(params)
    for rate in rates:
        updates, state = tx.update({"bias": jnp.ones(())}, state, params)
        assert -updates["bias"] == pytest.approx(rate, abs=1e-5)


# --- Neighbours and whole runs


# The teacher follows within a few steps, and the heads are wide enough to learn as fast.
QUICK = {"warmup_epochs": 0, "teacher_decay": 0.9, "hidden": 64, "width": 32}


def blobs(n=60, k=3, d=6, seed=0, noise=0.3):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    rows = np.eye(k, d)[labels] * 3 + noise * rng.normal(size=(n, d))
    return Dataset({"image": rows.astype(np.float32)}, row_ids(n), labels, "blobs", "all")


def test_preparation_is_the_nearest_other_rows(tmp_path):
    data = blobs()
    prepared = build().prepare(KEY, data, tmp_path)
    found = prepared.partners["image"]
    np.testing.assert_array_equal(found, nearest_neighbours(data.features["image"], 4))
    assert found.shape == (60, 4) and not (found == np.arange(60)[:, None]).any()
    few = build(neighbours=50).prepare(KEY, blobs(12), tmp_path / "few").partners["image"]
    assert all(sorted(row) == sorted(set(range(12)) - {i}) for i, row in enumerate(few))


@pytest.mark.long
def test_wrong_neighbours_have_lower_weights():
    """30 % of the pairs are from different blobs."""
    data, rng = blobs(n=120, k=4, d=6), np.random.default_rng(1)
    labels, rows = data.labels, data.features["image"]
    wrong = rng.random(120) < 0.3
    partners = [rng.choice(np.flatnonzero((labels == labels[i]) != wrong[i])) for i in range(120)]
    batch = {"image": rows, "image_partner": rows[partners], "index": np.arange(120)}
    method = build(Spec(4, 120, 1, {"train": 1}), **QUICK, optimizer={"learning_rate": 0.003})
    objective = method.phases[0].objectives[0]

    def step(_, carry):
        variables, state = carry
        grad = jax.grad(lambda p: objective.loss({**variables, "params": p}, batch, KEY), has_aux=True)
        gradient, (changed, _) = grad(variables["params"])
        updates, state = objective.tx.update(gradient, state, variables["params"])
        return {**variables, **changed, "params": optax.apply_updates(variables["params"], updates)}, state

    variables = method.init(KEY, batch)
    carry = variables, objective.tx.init(variables["params"])
    variables = jax.jit(lambda carry: jax.lax.fori_loop(0, 300, step, carry))(carry)[0]
    p = np.asarray(method.predict(variables, batch))
    weight = pair_weights(p[None], p[partners][None])
    assert weight[wrong].mean() < 0.5 * weight[~wrong].mean()


@pytest.mark.long
def test_a_run_finds_the_blobs_and_keeps_the_best_seed(tmp_path):
    config = config_of(num_clusters=3, num_seeds=2, batch_size=24, epochs=100, model={**SMALL, **QUICK})
    config.optimizer.learning_rate = 0.003
    config.run.log_every = config.run.evaluate_every = config.run.checkpoint_every = 0
    result = run.train(config.to_dict(), tmp_path, streams={"train": blobs(72)}, quiet=True, reported=False)
    each = result["seeds"]["each"]
    assert result["scores"]["acc"] == 1.0
    assert result["criterion"] == min(scores["criterion"] for scores in each)


# --- Errors

WRONG = [
    ({"heads": 0}, "heads is 0"),
    ({"beta": 0.0}, "beta is 0.0"),
    ({"beta": 1.5}, "beta is 1.5"),
    ({"teacher_decay": 1.0}, "teacher_decay is 1.0"),
    ({"warmup_epochs": -1}, "warmup_epochs is -1"),
    ({"student_temperature": 0.0}, "student_temperature is 0.0"),
    ({"neighbours": 0}, "neighbours is 0"),
    ({"optimizer": {"learning_rat": 1}}, "learning_rate"),
]


@pytest.mark.parametrize("settings, message", WRONG, ids=str)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(UserError, match=message):
        build(**settings)


def test_several_spaces_are_refused():
    with pytest.raises(UserError, match="one feature space"):
        build().init(KEY, {"view0": np.zeros((2, 3)), "view1": np.zeros((2, 3))})


@pytest.mark.parametrize("epochs, warned", [(499, 1), (500, 0)])
def test_few_steps_warn(tmp_path, epochs, warned):
    """The published epochs of few rows are few steps, and the clusters are far from final."""
    dataset = Dataset({"image": batch_of()["image"]}, row_ids(N), None, "rows", "all")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        build(Spec(K, N, epochs, {"train": STEPS})).prepare(KEY[None], dataset, tmp_path)
    assert len([w for w in found if "TEMI takes 998 steps" in str(w.message)]) == warned


def test_the_quick_variant_trains_longer_on_few_rows():
    quick, published = config_of("quick"), config_of()
    assert [c.epochs * (5000 // c.batch_size) for c in (quick, published)] == [1520, 400]
    assert (published.batch_size, published.model.heads) == (1024, 16)
