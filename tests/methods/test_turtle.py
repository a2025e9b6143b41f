"""Compares the inner and outer problem of TURTLE with NumPy loops; tests small runs and the generalisation score."""

import warnings
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax import run
from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.errors import UserError
from clustering_jax.method import Spec
from clustering_jax.methods import METHODS
from clustering_jax.methods.feature_spaces import feature_spaces, initial_norms, updated_norms
from clustering_jax.methods.generalization import generalization_score
from clustering_jax.methods.linear_probe import Probe, cross_entropy, fit_probe, frozen_product, initial_probe
from clustering_jax.methods.turtle import outer_terms
from clustering_jax.settings import turtle as config_of

N, K, WIDTHS = 12, 3, {"view0": 4, "view1": 6}
KEY = jax.random.key(3)
UNIFORM = np.full(K, 1 / K)
SHARES = np.array([0.6, 0.3, 0.1])


def build(spec=None, **settings):
    return METHODS["turtle"](spec or Spec(K, N, 1, {"train": 1}), **settings)


def loss_of(method):
    return method.phases[0].objectives[0].loss


def batch_of(seed=0, mask=False):
    """Rows of two spaces of different widths and norms; with `mask`, some rows lack a space."""
    rng = np.random.default_rng(seed)
    batch = {name: rng.normal(2.0, 3.0, (N, d)).astype(np.float32) for name, d in WIDTHS.items()}
    if mask:
        there = np.ones((N, 2), bool)
        there[:4, 0], there[6:9, 1] = False, False
        for v, name in enumerate(WIDTHS):
            batch[name] *= there[:, v, None]
        batch["mask"] = there
    return {**batch, "index": np.arange(N, dtype=np.int32)}


@cache
def params_of(seed=1, size=0.3):
    """A task encoder far from its initial value, and inner classifiers."""
    rng = np.random.default_rng(seed)

    def layer(d):
        return {"kernel": size * rng.normal(size=(d, K)), "bias": rng.normal(size=K)}

    task = {name: {**layer(d), "scale": 0.2 + rng.random(K)} for name, d in WIDTHS.items()}
    return task, {name: layer(d) for name, d in WIDTHS.items()}


def single(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)


# --- Textbook loops


def softmax(row):
    e = np.exp(row - row.max())
    return e / e.sum()


def there_of(batch):
    return batch.get("mask", np.ones((N, 2), bool))


def scales_of(batch, scaled):
    """sqrt(d) / mean norm of each space, where the mean is over the rows that have the space."""
    if not scaled:
        return {name: 1.0 for name in WIDTHS}
    return {
        name: d**0.5 / np.mean([np.linalg.norm(batch[name][i]) for i in range(N) if there_of(batch)[i, v]])
        for v, (name, d) in enumerate(WIDTHS.items())
    }


def soft_labels(task, batch, scales):
    """The assignments of each row in each of its spaces, and tau."""
    p, tau = {name: {} for name in WIDTHS}, np.full((N, K), 1 / K)
    for i in range(N):
        for v, (name, layer) in enumerate(task.items()):
            if there_of(batch)[i, v]:
                z = scales[name] * batch[name][i]
                columns = [layer["kernel"][:, c] / np.linalg.norm(layer["kernel"][:, c]) for c in range(K)]
                p[name][i] = softmax(np.array([layer["scale"][c] * columns[c] @ z for c in range(K)]) + layer["bias"])
        own = [p[name][i] for name in WIDTHS if i in p[name]]
        tau[i] = np.mean(own, 0) if own else 1 / K
    return p, tau


def cross_entropy_loop(layers, batch, tau, scales):
    total = 0.0
    for v, (name, layer) in enumerate(layers.items()):
        rows = [i for i in range(N) if there_of(batch)[i, v]]
        for i in rows:
            q = softmax(scales[name] * batch[name][i] @ layer["kernel"] + layer["bias"])
            total -= sum(tau[i, c] * np.log(q[c]) for c in range(K)) / len(rows)
    return total


def outer_loop(task, layers, batch, scales, prior):
    p, tau = soft_labels(task, batch, scales)
    divergence = 0.0
    for name in WIDTHS if prior is not None else ():
        mean = np.mean(list(p[name].values()), 0)
        divergence += sum(mean[c] * np.log(mean[c] / prior[c]) for c in range(K))
    return cross_entropy_loop(layers, batch, tau, scales), divergence, tau


def adam_loop(layers, batch, tau, scales, steps, rate):
    """Adam with the gradient of the cross-entropy written out: z (q - tau)."""
    layers = jax.tree.map(np.copy, layers)
    m, v = (jax.tree.map(np.zeros_like, layers) for _ in range(2))
    for t in range(1, steps + 1):
        for space, (name, layer) in enumerate(layers.items()):
            rows = [i for i in range(N) if there_of(batch)[i, space]]
            gradient = {"kernel": np.zeros_like(layer["kernel"]), "bias": np.zeros(K)}
            for i in rows:
                z = scales[name] * batch[name][i]
                error = (softmax(z @ layer["kernel"] + layer["bias"]) - tau[i]) / len(rows)
                gradient["kernel"] += np.outer(z, error)
                gradient["bias"] += error
            for part, g in gradient.items():
                m[name][part] = 0.9 * m[name][part] + 0.1 * g
                v[name][part] = 0.999 * v[name][part] + 0.001 * g**2
                step = m[name][part] / (1 - 0.9**t) / (np.sqrt(v[name][part] / (1 - 0.999**t)) + 1e-8)
                layer[part] = layer[part] - rate * step
    return layers


def norms_of(batch):
    return updated_norms(initial_norms(batch), batch)


# --- The two problems

CASES = {
    "uniform prior": (False, True, UNIFORM),
    "shares": (False, True, SHARES),
    "no prior": (False, True, None),
    "raw features": (False, False, UNIFORM),
    "missing rows": (True, True, SHARES),
}


@pytest.mark.parametrize("case", CASES)
def test_the_outer_terms(case):
    masked, scaled, prior = CASES[case]
    batch, (task, layers) = batch_of(mask=masked), params_of(size=0.3 if scaled else 0.05)
    spaces = feature_spaces(norms_of(batch) if scaled else None, batch)
    log_prior = None if prior is None else np.log(prior).astype(np.float32)
    found = jax.jit(outer_terms)(single(task), single(layers), spaces, log_prior)
    expected = outer_loop(task, layers, batch, scales_of(batch, scaled), prior)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)


def test_the_gradient_by_finite_differences():
    """The loop keeps the inner classifiers fixed, so the gradient must not contain the derivative through them."""
    batch, (task, layers) = batch_of(mask=True), params_of()
    spaces, scales = feature_spaces(norms_of(batch), batch), scales_of(batch, True)

    def total(task, layers):
        outer, divergence, _ = outer_terms(task, layers, spaces, jnp.log(SHARES))
        return outer + 10 * divergence

    gradient, of_layers = jax.jit(jax.grad(total, (0, 1)))(single(task), single(layers))
    assert not any(np.any(x) for x in jax.tree.leaves(of_layers))
    rng = np.random.default_rng(5)
    for _ in range(3):
        direction = jax.tree.map(lambda x: rng.normal(size=x.shape), task)
        ends = []
        for sign in (1, -1):
            moved = jax.tree.map(lambda x, d, sign=sign: x + sign * 1e-5 * d, task, direction)
            outer, divergence, _ = outer_loop(moved, layers, batch, scales, SHARES)
            ends.append(outer + 10 * divergence)
        slope = sum(np.sum(g * d) for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3)


@pytest.mark.parametrize("masked", [False, True])
def test_the_inner_classifiers_take_steps_of_adam(masked):
    batch, (_, layers) = batch_of(mask=masked), params_of()
    tau = np.random.default_rng(2).dirichlet(np.ones(K), N)
    spaces = feature_spaces(norms_of(batch), batch)
    start = Probe(single(layers), *(jax.tree.map(jnp.zeros_like, single(layers)) for _ in range(2)), jnp.zeros(()))
    fitted = jax.jit(fit_probe, static_argnums=(3, 4))(start, spaces, tau.astype(np.float32), 7, 0.05)
    expected = adam_loop(layers, batch, tau, scales_of(batch, True), 7, 0.05)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), fitted.layers, expected)
    assert fitted.steps == 7
    assert cross_entropy(fitted.layers, spaces, tau) < cross_entropy(start.layers, spaces, tau)


def drawn(batch, key=KEY):
    """The inner classifiers that a cold step starts from."""
    return initial_probe(jax.random.fold_in(key, batch["index"][0]), WIDTHS, K).layers


@pytest.mark.parametrize("settings, prior", [({}, UNIFORM), ({"prior": "6,3,1"}, SHARES), ({"prior": "none"}, None)])
def test_the_loss_of_a_step(settings, prior):
    """A step computes tau, takes the inner steps on it, and computes the outer terms with the fitted classifiers."""
    method, batch, (task, _) = build(gamma=4.0, **settings), batch_of(), params_of()
    variables = {"params": single(task), "norms": initial_norms(batch)}
    value, (changed, terms) = jax.jit(loss_of(method))(variables, batch, KEY)
    scales = scales_of(batch, True)
    start = jax.tree.map(lambda x: np.asarray(x, np.float64), drawn(batch))
    layers = adam_loop(start, batch, soft_labels(task, batch, scales)[1], scales, 10, 1e-3)
    outer, divergence, _ = outer_loop(task, layers, batch, scales, prior)
    assert terms["outer"] == pytest.approx(outer, rel=1e-4) and terms["prior"] == pytest.approx(
        4 * divergence, rel=1e-4
    )
    assert value == pytest.approx(outer + 4 * divergence, rel=1e-4)
    assert set(changed) == {"norms"} and changed["norms"]["steps"] == 1


def test_a_cold_start_draws_new_classifiers_for_each_batch_of_an_epoch():
    """The key is the same for all batches of an epoch."""
    loss, batch = jax.jit(lambda *a: loss_of(build())(*a)[1][1]["outer"]), batch_of()
    variables = build().init(KEY, batch)
    later = {**batch, "index": batch["index"] + 5}
    assert loss(variables, batch, KEY) == loss(variables, batch, KEY) != loss(variables, later, KEY)


def test_a_warm_start_continues_with_the_classifiers_and_their_adam_state():
    """Two steps with the same tau equal one step with twice as many inner steps."""
    batch, losses = batch_of(), [loss_of(build(warm_start=True, inner_steps=steps)) for steps in (4, 8)]
    variables = build(warm_start=True).init(KEY, batch)
    once = jax.jit(losses[1])(variables, batch, KEY)[1][0]
    twice = variables
    for _ in range(2):
        twice = {**twice, **jax.jit(losses[0])(twice, batch, KEY)[1][0]}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), once["inner"], twice["inner"])
    assert once["inner"]["steps"] == 8


def test_initial_weights():
    wide = {"view0": np.ones((2, 400), np.float32), "view1": np.ones((2, 6), np.float32)}
    params = build(Spec(50, N, 1, {"train": 1})).init(KEY, wide)["params"]
    kernel, bound = np.asarray(params["view0"]["kernel"]), 400**-0.5
    assert kernel.shape == (400, 50) and 0.99 * bound < np.abs(kernel).max() <= bound
    assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    assert 0.5 * bound < np.abs(params["view0"]["bias"]).max() <= bound
    np.testing.assert_allclose(params["view0"]["scale"], np.linalg.norm(kernel, axis=0), rtol=1e-5)


# --- Scale, prediction, seeds


@pytest.mark.long
def test_the_units_of_the_feature_spaces_do_not_matter():
    batch = batch_of()
    other = {**batch, "view0": 1000 * batch["view0"], "view1": batch["view1"] / 50}
    for scaled in (True, False):
        method = build(scale=scaled)
        values = []
        for rows in (batch, other):
            variables = method.init(KEY, rows)
            value, (changed, _) = jax.jit(loss_of(method))(variables, rows, KEY)
            values.append((value, method.predict({**variables, **changed}, rows)))
        close = np.allclose(values[0][0], values[1][0], rtol=1e-4) and np.allclose(*[v[1] for v in values], atol=1e-4)
        assert close == scaled


def test_the_norm_is_the_mean_over_all_steps():
    batches = [batch_of(seed, mask=True) for seed in range(3)]
    norms = initial_norms(batches[0])
    for batch in batches:
        norms = updated_norms(norms, batch)
    for v, name in enumerate(WIDTHS):
        means = [np.linalg.norm(b[name][b["mask"][:, v]], axis=1).mean() for b in batches]
        assert norms[name] == pytest.approx(np.mean(means), rel=1e-5)
        scale = feature_spaces(norms, batches[0])[name].scale
        assert scale == pytest.approx(WIDTHS[name] ** 0.5 / np.mean(means), rel=1e-5)


def test_prediction_and_embedding():
    """Returns tau and the scaled features, with the norm of the training. A row without any space gets 1/K."""
    method, batch, (task, _) = build(), batch_of(mask=True), params_of()
    batch["mask"][5] = False
    variables = {"params": single(task), "norms": norms_of(batch)}
    scales = scales_of(batch, True)
    np.testing.assert_allclose(method.predict(variables, batch), soft_labels(task, batch, scales)[1], rtol=1e-4)
    np.testing.assert_allclose(method.predict(variables, batch)[5], UNIFORM, rtol=1e-6)
    rows = np.concatenate([scales[name] * batch[name] for name in WIDTHS], axis=1)
    np.testing.assert_allclose(method.embed(variables, batch), rows, rtol=1e-4, atol=1e-6)
    second = {"view1": batch["view1"], "mask": batch["mask"] & [False, True]}
    expected = soft_labels(task, {**batch, **second}, scales)[1]
    np.testing.assert_allclose(method.predict(variables, second), expected, rtol=1e-4)
    np.testing.assert_allclose(method.embed(variables, second)[:, 4:], rows[:, 4:], rtol=1e-4, atol=1e-6)


def shapes_in(jaxpr):
    """Shapes of everything that a program computes."""
    for equation in jaxpr.eqns:
        yield from (v.aval.shape for v in equation.outvars)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from shapes_in(inner)


def test_seeds_side_by_side_share_the_features():
    """No array of the program has the features once for each seed."""
    n, d, seeds = 41, 29, 7
    batch = {"image": np.ones((n, d), np.float32), "index": np.arange(n)}
    keys = jax.random.split(KEY, seeds)
    method = build()
    variables = jax.vmap(method.init, in_axes=(0, None))(keys, batch)

    def step(variables, key):
        return jax.grad(lambda p: loss_of(method)({**variables, "params": p}, batch, key)[0])(variables["params"])

    sizes = {int(np.prod(shape)) for shape in shapes_in(jax.make_jaxpr(jax.vmap(step))(variables, keys).jaxpr)}
    assert seeds * n * K in sizes and seeds * d * K in sizes and max(sizes) < seeds * n * d


def test_a_batch_of_all_rows_is_one_phase_of_full_batches():
    phase = build(Spec(K, 10, 3, {"train": 1})).phases[0]
    assert (phase.num_steps, phase.whole) == (6000, True)
    phase = build(Spec(K, 10, 3, {"train": 4}), num_steps=0).phases[0]
    assert (phase.num_steps, phase.whole) == (12, False)


# --- Whole runs


def blobs(n=60, k=2, d=2, seed=0, noise=0.3):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    centers = 6 * np.eye(max(k, d))[:k, :d] - 3
    rows = (centers[labels] + noise * rng.normal(size=(n, d))).astype(np.float32)
    return Dataset({"view0": rows}, row_ids(n), labels, "blobs", "all")


def trained(dataset, tmp_path, *, k, steps, seeds=1, model=(), **changes):
    config = config_of(
        num_clusters=k,
        num_seeds=seeds,
        batch_size=dataset.num_examples,
        model={"num_steps": steps, "inner_learning_rate": 0.1, **dict(model)},
    )
    config.optimizer.learning_rate = 0.01
    config.run.log_every = 0
    with warnings.catch_warnings():
        # The warning about a collapse, which one test provokes.
        warnings.simplefilter("ignore")
        return run.train(
            {**config.to_dict(), **changes}, tmp_path, streams={"train": dataset}, quiet=True, reported=False
        )


@pytest.mark.long
def test_two_distant_blobs_are_found_from_any_seed(tmp_path):
    result = trained(blobs(), tmp_path, k=2, steps=200, seeds=5)
    assert [scores["acc"] for scores in result["seeds"]["each"]] == [1.0] * 5
    assert result["criterion"] == -1.0


@pytest.mark.parametrize("gamma, filled", [(10.0, True), (0.0, False)])
@pytest.mark.long
def test_the_entropy_fills_all_clusters(gamma, filled, tmp_path):
    result = trained(blobs(n=90, k=6, d=6, noise=1.0), tmp_path, k=6, steps=300, model={"gamma": gamma})
    assert (result["scores"]["occupied"] == 6) == filled


@pytest.mark.long
def test_clusters_have_the_shares_of_the_prior(tmp_path):
    """Three blobs of equal size give two clusters. The shares of the prior put two blobs into one cluster."""
    result = trained(blobs(n=60, k=3, d=3), tmp_path, k=2, steps=300, model={"prior": "2,1"})
    assert (result["scores"]["smallest"], result["scores"]["largest"]) == (20, 40)


def imbalanced(seed=0):
    """110 rows in one blob and 11 in another, along the first column; the second column halves all of them evenly."""
    labels = np.arange(121) % 11 == 0
    rows = np.random.default_rng(seed).normal(0, 0.3, (121, 2)) + np.stack([6.0 * labels - 3, np.zeros(121)], axis=1)
    return rows.astype(np.float32), labels.astype(int)


@pytest.mark.parametrize(("prior", "truth_wins"), [("uniform", False), ("10,1", True), ("none", True)])
def test_the_prior_decides_between_the_truth_and_equal_sizes(prior, truth_wins):
    """Of a task encoder that finds ten rows to one, and one that halves the rows, which has the smaller loss."""
    rows, _ = imbalanced()
    batch = {"image": rows, "index": np.arange(121)}
    loss = jax.jit(loss_of(build(Spec(2, 121, 1, {"train": 1}), prior=prior, inner_learning_rate=0.1, scale=False)))

    def value(column):
        kernel = np.zeros((2, 2), np.float32)
        kernel[column] = [-1, 1]
        layer = {"kernel": kernel, "bias": np.zeros(2, np.float32), "scale": np.full(2, 9.0, np.float32)}
        return float(loss({"params": {"image": layer}}, batch, KEY)[0])

    assert (value(0) < value(1)) == truth_wins


@pytest.mark.long
def test_imbalanced_blobs_need_their_prior(tmp_path):
    rows, labels = imbalanced()
    data = Dataset({"view0": rows}, row_ids(121), labels, "imbalanced", "all")
    acc = {
        prior: trained(data, tmp_path / prior, k=2, steps=200, model={"prior": prior})["scores"]["acc"]
        for prior in ("uniform", "10,1")
    }
    assert acc["10,1"] == 1.0 > 0.9 > acc["uniform"]


@pytest.mark.long
def test_batches_of_a_part_of_the_rows(tmp_path):
    result = trained(blobs(), tmp_path, k=2, steps=200, batch_size=20)
    assert result["scores"]["acc"] == 1.0


# --- The generalisation score


def test_true_labels_generalise_and_random_labels_do_not():
    data = blobs(n=200, k=4, d=4, noise=1.0)
    rows, shuffled = data.features["view0"], np.random.default_rng(1).permutation(data.labels)
    true, random = (generalization_score([rows], labels) for labels in (data.labels, shuffled))
    assert true > 0.95 and abs(random - 0.25) < 0.12
    assert generalization_score([rows], np.zeros(200, int)) == 0.0


def test_a_space_of_noise_lowers_the_score():
    data = blobs(n=200, k=4, d=4, noise=1.5)
    good, noise = data.features["view0"], np.random.default_rng(1).normal(size=(200, 4))
    scores = [generalization_score(spaces, data.labels) for spaces in ([good], [good, noise], [noise])]
    assert scores[0] > scores[1] + 0.2 and scores[1] > scores[2] + 0.2


def test_the_score_ignores_missing_rows_and_limits_the_data():
    """The values of missing rows have no effect, and only a part of large data is used."""
    data = blobs(n=200, k=4, d=4)
    rows = data.features["view0"].copy()
    mask = np.random.default_rng(1).random((200, 1)) < 0.8
    rows[~mask[:, 0]] = 0
    assert generalization_score([rows], data.labels, mask=mask) == 1.0 > generalization_score([rows], data.labels)
    wide = np.concatenate([rows, np.zeros((200, 100))], axis=1)
    assert generalization_score([wide], data.labels, mask=mask, max_rows=50, max_columns=4) == 1.0


# --- Errors

WRONG = [
    ({"gamma": -1.0}, "gamma is -1.0"),
    ({"num_steps": -1}, "num_steps is -1"),
    ({"inner_steps": 0}, "inner_steps is 0"),
    ({"inner_learning_rate": 0.0}, "inner_learning_rate is 0.0"),
    ({"prior": "uniforn"}, "prior is 'uniforn'"),
    ({"prior": "1,2"}, "prior is '1,2'.* 3 numbers"),
    ({"prior": (1, 2, 0)}, "prior"),
    ({"optimizer": {"learning_rat": 1}}, "learning_rate"),
]


@pytest.mark.parametrize("settings, message", WRONG, ids=str)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(UserError, match=message):
        build(**settings)


def test_images_are_refused():
    with pytest.raises(UserError, match="embeddings or multiview"):
        build().init(KEY, {"image": np.zeros((2, 4, 4, 3))})


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_product_with_frozen_rows_has_the_gradient_of_a_product(seeds):
    rng = np.random.default_rng(0)
    rows, kernels = rng.normal(size=(7, 4)).astype(np.float32), rng.normal(size=(seeds, 4, 3)).astype(np.float32)

    def total(product, kernel):
        return jnp.sum(jnp.sin(product(rows, kernel)))

    ours, expected = (
        jax.jit(jax.vmap(jax.value_and_grad(partial(total, product))))(kernels)
        for product in (frozen_product, jnp.matmul)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, expected)
