"""Compares DMIM with the authors' trajectory, and every setting with its formula; tests missing modalities."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.errors import UserError
from clustering_jax.method import Spec
from clustering_jax.methods import METHODS
from clustering_jax.methods.dmim import method as dmim
from clustering_jax.methods.dmim import objective
from clustering_jax.methods.dmim.network import Codes
from clustering_jax.methods.dmim.objective import draw_noise
from clustering_jax.training import loop, update
from clustering_jax.training.checkpoint import Store, checksums
from clustering_jax.training.evaluate import make_infer
from clustering_jax.training.log import MetricsLog
from clustering_jax.training.seeds import take_seed
from clustering_jax.training.signals import Interrupted
from tests.training.test_loop import interrupt_at

N, D, K = 24, 6, 3
SPEC = Spec(K, N, 12, {"train": 1})
KEY = jax.random.key(7)
ROW, COLUMN = np.mgrid[:N, :D]
VIEWS = (
    np.sin(0.5 * ROW + 0.9 * COLUMN + 0.1),
    np.cos(0.4 * ROW - 0.7 * COLUMN + 0.2),
    np.sin(0.3 * ROW + 1.3 * COLUMN),
)
LAYERS = {"linear_0": D, "linear_1": D, "gaussian_head": 2 * D, "over_head": 2 * K, "cluster_head": K}


def batch_of(views=2, mask=None, dtype=np.float32):
    batch = {f"view{v}": x.astype(dtype) for v, x in enumerate(VIEWS[:views])}
    batch["index"] = np.arange(N, dtype=np.int32)
    return batch if mask is None else {**batch, "mask": mask}


def build(spec=SPEC, **settings):
    return METHODS["dmim"](spec, **{"over_clusters": 2, **settings})


def starting(method, batch, dtype=np.float32):
    """The initial weights of the trajectory, which are not random."""
    variables = jax.tree.map(lambda x: np.asarray(x, dtype), method.init(KEY, batch))
    for c, (name, width) in enumerate(LAYERS.items()):
        o, k = np.meshgrid(np.arange(width), np.arange(D))
        kernel = 0.5 * np.sin(1 + 0.37 * o + 0.61 * k + c).astype(dtype)
        variables["params"][name] = {"kernel": kernel, "bias": np.zeros(width, dtype)}
    return variables


def infer_on(batch, size=N):
    features = {k: v for k, v in batch.items() if k != "index"}
    compiled = {}

    def infer(function, variables):
        compiled.setdefault(function, make_infer(function, size))
        return compiled[function](variables, features)

    return infer


TRAJECTORY = {
    0: (-0.00000362, -0.00112374, 0.05641091 + 0.08243860, 0.51993272, 0.65765487),
    1: (-0.00000470, -0.00130844, 0.05173491 + 0.07662636, 0.51451969, 0.64156782),
    4: (-0.00008580, -0.00221905, 0.04143211 + 0.06249881, 0.49951810, 0.60114417),
    5: (-0.00016278, -0.00258346, 0.03922156 + 0.05896581, 0.49876589, 0.59420703),
    9: (-0.00111213, -0.00512841, 0.03525246 + 0.04986408, 0.48232391, 0.56119990),
    10: (-0.00158162, -0.00612660, 0.03488970 + 0.04850473, 0.49819407, 0.57388028),
    11: (-0.00216029, -0.00730714, 0.03464357 + 0.04734279, 0.49523161, 0.56775054),
}
DRAWN = ("200000122222210000112222", "100000122222200000112222", "100000112222100000112222")
EVALUATED = "200002222222200000222222"


def digits(text):
    return [int(c) for c in text]


@pytest.mark.long
def test_the_trajectory_of_the_authors(monkeypatch):
    """Losses, drawn labels and final labels equal those of the authors' functions in float64 (L3 with its 1/2)."""
    noise = np.stack(
        [np.sin(0.8 * ROW * COLUMN + 0.3), np.sin(1.1 * ROW + 0.3 * COLUMN), np.cos(0.6 * ROW + 1.7 * COLUMN)], 1
    )
    monkeypatch.setattr(dmim, "draw_noise", lambda *_: noise)
    with jax.enable_x64(True):
        batch = batch_of(dtype=np.float64)
        method = build(optimizer={"learning_rate": 0.01})
        state, txs = update.init_state(method, starting(method, batch, np.float64)), update.optimizers(method)
        infer, terms = infer_on(batch), []
        step = jax.jit(partial(update.train_step, method.phases[0], txs))
        for phase, drawn in zip(method.phases, DRAWN, strict=True):
            pseudo = phase.targets(KEY, state.variables, infer)["pseudo"]
            np.testing.assert_array_equal(pseudo[:, 0], digits(drawn))
            for _ in range(phase.num_steps):
                state, values = step(state, {**batch, "pseudo": pseudo}, KEY)
                terms.append(jax.device_get(values))
        evaluated = method.predict(state.variables, batch).argmax(1)
    assert [phase.num_steps for phase in method.phases] == [5, 5, 2]
    for t, expected in TRAJECTORY.items():
        found = terms[t]
        actual = found["cluster"], found["over"], found["superfluous"], found["balance"] / 2, found["loss"]
        np.testing.assert_allclose(actual, expected, atol=1e-7)
    np.testing.assert_array_equal(evaluated, digits(EVALUATED))


@pytest.mark.parametrize("swapped", [False, True])
def test_known_values_of_the_terms(swapped):
    """The terms of the loss have the authors' values for p, q and z."""
    i, j = np.mgrid[:6, :3]
    prior = np.cos(0.5 + 0.9 * i - 0.8 * j)
    p, q = (np.asarray(jax.nn.softmax(2 * x)) for x in (np.sin(1 + 0.7 * i + 1.3 * j), prior))
    hard = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]]
    other = hard[:, [1, 0, 2]] if swapped else hard[:, [1, 2, 0]]
    codes, masks = {0: codes_of(p, o=hard), 1: codes_of(q, o=other)}, {0: None, 1: None}
    terms = objective.information_losses(codes, masks)
    np.testing.assert_allclose(terms["cluster"], -0.0885193, atol=1e-6)
    np.testing.assert_allclose(terms["over"], -1.0986123 if swapped else -0.4054651, atol=1e-6)
    value = objective.superfluous_information(codes, masks, prior)
    np.testing.assert_allclose(value, 2 * 0.2254068, atol=1e-6)


def codes_of(c, o=None):
    i, j = np.mgrid[: len(c), :3]
    z = 1.5 * np.sin(1 + 0.7 * i + 1.3 * j)
    return Codes(jnp.asarray(c), o, z, z)


MASK = np.stack([ROW[:, 0] % 4 != 1, ROW[:, 0] % 3 != 2, ROW[:, 0] >= 0], 1)
PSEUDO = np.arange(N, dtype=np.int32)[:, None] % K
OPTIONS = {
    "defaults": {},
    "cluster_weight": {"cluster_weight": 0.3},
    "over_weight": {"over_weight": 0.0},
    "superfluous_weight": {"superfluous_weight": 2.0},
    "balance_weight": {"balance_weight": 0.2},
    "no superfluous": {"superfluous_weight": 0.0},
    "mean balanced": {"balanced": "mean"},
    "one softmax": {"double_softmax": False},
    "no labels": {"balance_weight": 0.0},
}


def softmax(x):
    x = np.exp(x - x.max(1, keepdims=True))
    return x / x.sum(1, keepdims=True)


def information(p, q):
    joint = p.T @ q / len(p)
    joint = (joint + joint.T) / 2
    return np.sum(joint * np.log(joint / np.outer(joint.sum(1), joint.sum(0))))


def prior_divergence(z, prior):
    prior = softmax(prior)
    return np.mean(prior * np.log(prior / softmax(z)))


def by_formula(variables, batch, mask, **settings):
    """The loss from the rows of each modality, computed in NumPy."""
    s = {"cluster_weight": 1, "over_weight": 1, "superfluous_weight": 1, "balance_weight": 0.5, **settings}
    views = [v for v in range(3) if f"view{v}" in batch]
    noise, params = np.asarray(draw_noise(KEY, batch["index"], len(views), D), float), variables["params"]
    rows = [np.flatnonzero(mask[:, v]) for v in views]
    c, o = np.zeros((len(views), N, K)), np.zeros((len(views), N, 2 * K))
    mu, sigma, z = (np.zeros((len(views), N, D)) for _ in range(3))
    for v in views:
        h = batch[f"view{v}"][rows[v]].astype(np.float64)
        for i in range(2):
            h = h @ params[f"linear_{i}"]["kernel"]
            h = np.maximum((h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5), 0)
        gauss = h @ params["gaussian_head"]["kernel"]
        mu[v, rows[v]], sigma[v, rows[v]] = gauss[:, :D], np.log1p(np.exp(gauss[:, D:])) + 1e-7
        z[v] = mu[v] + sigma[v] * noise[:, 1 + v]
        c[v, rows[v]] = softmax(h @ params["cluster_head"]["kernel"])
        o[v, rows[v]] = softmax(h @ params["over_head"]["kernel"])
    value = 0.0
    for v, w in [(v, w) for v in views for w in views if v < w]:
        both = np.intersect1d(rows[v], rows[w])
        value -= s["cluster_weight"] * information(c[v, both], c[w, both])
        value -= s["over_weight"] * information(o[v, both], o[w, both])
    for v in views:
        value += s["superfluous_weight"] * prior_divergence(z[v, rows[v]], noise[rows[v], 0])
    p, labelled = {
        "first": (c[0], rows[0]),
        "mean": (c.sum(0) / mask[:, views].sum(1)[:, None], ROW[:, 0]),
    }[s.get("balanced", "first")]
    p = softmax(p) if s.get("double_softmax", True) else p
    return value - s["balance_weight"] * np.log(p[labelled, PSEUDO[labelled, 0]]).mean()


CASES = [(name, 3, True) for name in OPTIONS] + [("defaults", 2, False)]


@pytest.mark.parametrize("name, views, missing", CASES)
@pytest.mark.long
def test_every_setting_changes_the_loss_by_its_formula(name, views, missing):
    settings = OPTIONS[name]
    mask = MASK[:, :views] if missing else np.ones((N, views), bool)
    batch = batch_of(views, mask if missing else None)
    method = build(**settings)
    variables = starting(method, batch)
    batch = batch if "balance_weight" in settings and not settings["balance_weight"] else {**batch, "pseudo": PSEUDO}
    # The loss is not compiled as a whole, because the cases share most operations.
    value, (_, terms) = loss_of(method)(variables, batch, KEY)
    np.testing.assert_allclose(value, by_formula(variables, batch, mask, **settings), rtol=2e-5, atol=2e-6)
    assert ("balance" in terms) == ("pseudo" in batch)


def loss_of(method):
    return method.phases[0].objectives[0].loss


@pytest.mark.long
def test_values_of_missing_rows_do_not_matter():
    """The values of missing rows change neither loss, gradient, running averages, labels nor features."""
    batch = {**batch_of(2, MASK[:, :2]), "pseudo": PSEUDO}
    other = {**batch, **{f"view{v}": np.where(MASK[:, [v]], batch[f"view{v}"], np.nan) for v in range(2)}}
    method = build()
    variables = starting(method, batch)

    def everything(params, batch):
        given = {**variables, "params": params}
        value, (changed, _) = loss_of(method)(given, batch, KEY)
        return value, (changed, method.predict(given, batch), method.embed(given, batch))

    step = jax.jit(jax.value_and_grad(everything, has_aux=True))
    results = [step(variables["params"], b) for b in (batch, other)]
    jax.tree.map(np.testing.assert_array_equal, *results)
    labels = [method.phases[0].targets(KEY, variables, infer_on(b))["pseudo"] for b in (batch, other)]
    np.testing.assert_array_equal(*labels)
    assert (labels[0][:, 0] < 0).tolist() == (~MASK[:, 0]).tolist()


def test_running_averages_equal_those_of_the_authors():
    """A step has two passes, each over all modalities in turn. As in torch, the variance is unbiased."""
    batch = {**batch_of(), "pseudo": PSEUDO}
    method = build()
    variables = starting(method, batch)
    _, (changed, _) = jax.jit(loss_of(method))(variables, batch, KEY)
    mean, var = np.zeros(D), np.ones(D)
    for v in (0, 1, 0, 1):
        h = batch[f"view{v}"] @ variables["params"]["linear_0"]["kernel"]
        mean, var = 0.9 * mean + 0.1 * h.mean(0), 0.9 * var + 0.1 * h.var(0, ddof=1)
    actual = changed["batch_stats"]["bn_0"]
    np.testing.assert_allclose(actual["mean"], mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(actual["var"], var, rtol=1e-4, atol=1e-6)


@pytest.mark.long
def test_seeds_side_by_side():
    batch = {**batch_of(3), "pseudo": PSEUDO}
    method = build()
    keys = jax.random.split(KEY, 2)
    variables = jax.jit(jax.vmap(method.init, in_axes=(0, None)))(keys, batch)

    def grad(variables, batch, key):
        def value(params):
            return loss_of(method)({**variables, "params": params}, batch, key)

        return jax.value_and_grad(value, has_aux=True)(variables["params"])

    together = jax.jit(jax.vmap(grad, in_axes=(0, None, 0)))(variables, batch, keys)
    alone = jax.jit(grad)(take_seed(variables, 1), batch, keys[1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), take_seed(together, 1), alone)


def test_noise_depends_only_on_the_example():
    index = np.array([4, 0, 9])
    noise = draw_noise(KEY, index, 2, 50)
    np.testing.assert_array_equal(draw_noise(KEY, index[::-1], 2, 50)[::-1], noise)
    correlation = np.corrcoef(np.asarray(noise).reshape(9, 50)) - np.eye(9)
    assert abs(correlation).max() < 0.6 and abs(np.std(noise) - 1) < 0.2


PERMUTED = [2, 0, 1]


@pytest.mark.parametrize("prediction", ["first", "aligned_mean"])
def test_predictions_rename_the_clusters_of_the_other_modalities(prediction):
    """View 1 has other numbers for the clusters. Rows have both views, the second, the first, or none."""
    first = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.1, 0.7], [1, 0, 0]])
    second = np.array([[0.5, 0.4, 0.1], [0.1, 0.9, 0.0], [1, 0, 0], [1, 0, 0]])
    renamed = np.zeros_like(second)
    renamed[:, PERMUTED] = second
    joint = np.zeros((3, 3))
    joint[np.arange(3), PERMUTED] = 1 / 3
    codes = {0: codes_of(first), 1: codes_of(renamed)}
    masks = {0: np.array([True, False, True, False]), 1: np.array([True, True, False, False])}
    found = dmim.assignments(codes, masks, {"view1": joint}, prediction)
    expected = {
        "first": [first[0], np.full(3, 1 / 3), first[2], np.full(3, 1 / 3)],
        "aligned_mean": [(first[0] + second[0]) / 2, second[1], first[2], np.full(3, 1 / 3)],
    }
    np.testing.assert_allclose(found, expected[prediction], rtol=1e-6)
    alone = dmim.assignments({1: codes[1]}, masks, {"view1": joint}, prediction)
    np.testing.assert_allclose(alone[1], np.full(3, 1 / 3) if prediction == "first" else second[1], rtol=1e-6)


@pytest.mark.long
def test_alignment_is_the_running_joint_table_of_the_training():
    batch = {**batch_of(2, MASK[:, :2]), "pseudo": PSEUDO}
    method = build()
    variables = starting(method, batch)
    seen, original = [], objective.information_losses
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective, "information_losses", lambda codes, *a: seen.append(codes) or original(codes, *a))
        _, (changed, _) = loss_of(method)({**variables, "alignment": {"view1": jnp.ones((K, K))}}, batch, KEY)
    both = MASK[:, 0] & MASK[:, 1]
    joint = np.asarray(seen[0][0].c)[both].T @ np.asarray(seen[0][1].c)[both] / N
    np.testing.assert_allclose(changed["alignment"]["view1"], 0.9 + 0.1 * joint, rtol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"balance_weight": 0.0}], ids=str)
@pytest.mark.long
def test_criterion_is_the_loss_of_all_rows_with_labels_of_the_same_parameters(settings):
    batch = batch_of()
    method = build(**settings)
    variables, infer = starting(method, batch), infer_on(batch, size=5)
    labels = build().phases[0].targets(KEY, variables, infer)
    value, _ = jax.jit(loss_of(method))(variables, {**batch, **labels}, KEY)
    assert method.criterion(KEY, variables, infer) == pytest.approx(float(value), rel=1e-5)


@pytest.mark.parametrize("settings", [{}, {"balanced": "mean"}], ids=str)
def test_labels_drawn_on_the_device_equal_labels_of_rows_chosen_on_the_host(settings):
    batch, calls = batch_of(2, MASK[:, :2]), []
    method, infer = build(**settings), infer_on(batch)
    variables = starting(method, batch)

    def counted(function, variables):
        calls.append(function)
        return infer(function, variables)

    drawn = [method.phases[0].targets(KEY, variables, counted)["pseudo"][:, 0] for _ in range(2)]
    assert len(calls) == 2  # the views and the mask, once for all draws
    network = dmim.Network(K, 2 * K, dmim.DMIM().head_std)

    @jax.jit
    def assignments(batch):
        rows, masks = objective.modalities(batch)
        codes, _ = network.apply(objective.state(variables), rows, True, masks=masks, mutable=["batch_stats"])
        return objective.balanced_assignments(codes, masks, settings.get("balanced", "first"))

    p, mask = map(np.asarray, assignments(batch))
    expected = np.full(N, -1, np.int32)
    expected[mask] = jax.jit(partial(dmim.balanced_labels, power=dmim.DMIM().power))(p[mask])
    assert (expected < 0).any() and len(set(expected.tolist())) > 2
    for labels in drawn:
        np.testing.assert_array_equal(labels, expected)


def test_labels_depend_on_the_power():
    batch = batch_of()
    method = build()
    variables, infer = starting(method, batch), infer_on(batch)
    sharp, flat = (build(power=p).phases[0].targets(KEY, variables, infer)["pseudo"] for p in (10.0, 0.01))
    assert (sharp != flat).any()


PHASES = {
    "full batch": ({}, [5, 5, 2], True),
    "mini-batches": ({"full_batch": False}, [15, 15, 6], True),
    "other period": ({"refresh_epochs": 7}, [7, 5], True),
    "no labels": ({"balance_weight": 0.0}, [12], False),
}


@pytest.mark.parametrize("name", PHASES)
def test_phases(name):
    settings, lengths, labels = PHASES[name]
    phases = build(Spec(K, 8, 12, {"train": 3}), **settings).phases
    assert [phase.num_steps for phase in phases] == lengths
    assert all(phase.whole != (name == "mini-batches") and phase.objectives is phases[0].objectives for phase in phases)
    assert all((phase.targets is not None) == labels for phase in phases)


def fit(directory, method, seeds, batch_size):
    batch = batch_of()
    data = Dataset({k: v for k, v in batch.items() if k != "index"}, row_ids(N), None, "toy", "all")
    init = jax.jit(method.init)
    each = [init(jax.random.key(seed), batch) for seed in seeds]
    store = Store(directory / "checkpoints")
    try:
        return loop.fit(
            method,
            {"train": data},
            each[0] if len(seeds) == 1 else jax.tree.map(lambda *x: np.stack(x), *each),
            seed_list=seeds,
            batch_size=batch_size,
            schedule=loop.Schedule(log_every=2, checkpoint_every=4),
            store=store,
            open_log=lambda step, total: MetricsLog(directory / "metrics.jsonl", step, total, batch_size),
            meta={},
            infer=infer_on(batch, batch_size),
            evaluate=lambda variables: {},
        )[0]
    finally:
        store.close()


@pytest.mark.parametrize("full_batch, seeds, at", [(True, (0, 1), 3), (True, (0, 1), 6), (False, (0,), 6)])
@pytest.mark.long
def test_a_run_interrupted_between_two_draws_of_labels_ends_the_same(tmp_path, monkeypatch, full_batch, seeds, at):
    epochs, batch_size = (12, N) if full_batch else (3, 8)
    settings = {"full_batch": full_batch, "refresh_epochs": 5 if full_batch else 2}
    method = build(Spec(K, batch_size, epochs, {"train": N // batch_size}), **settings)
    directories = [tmp_path / name for name in ("whole", "cut")]
    for directory in directories:
        directory.mkdir()
    whole = fit(directories[0], method, seeds, batch_size)
    with monkeypatch.context() as patch:
        interrupt_at(at, patch)
        with pytest.raises(Interrupted):
            fit(directories[1], method, seeds, batch_size)
    assert checksums(fit(directories[1], method, seeds, batch_size)) == checksums(whole)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(whole.variables))


@pytest.mark.parametrize("head", [0.0, 0.1])
@pytest.mark.long
def test_initial_weights(head):
    """Weights are normal and biases 0 if a deviation is set; else both are uniform up to inputs ** -0.5."""
    batch = {"view0": np.zeros((2, 100), np.float32), "view1": np.zeros((2, 100), np.float32)}
    params = build(head_std=head, over_clusters=20).init(KEY, batch)["params"]
    for name, std in {"linear_0": 0.02, "linear_1": 0.02, "gaussian_head": head, "over_head": head}.items():
        kernel, bias = (np.asarray(params[name][part]) for part in ("kernel", "bias"))
        if std:
            assert not bias.any() and np.abs(kernel).max() > 2.5 * std
        else:
            assert 0.08 < np.abs(bias).max() <= 0.1 and 0.099 < np.abs(kernel).max() <= 0.1
        np.testing.assert_allclose(kernel.std(), std or 0.1 / 3**0.5, rtol=0.05)


ERRORS = {
    "name": ({"hed_std": 0.1}, "method 'dmim' has no setting 'hed_std' .did you mean 'head_std'"),
    "balanced": ({"balanced": "last"}, "model.balanced is 'last'"),
    "prediction": ({"prediction": "aligned"}, "did you mean 'aligned_mean'"),
    "over-clusters": ({"over_clusters": 0}, "model.over_clusters is 0"),
    "period": ({"refresh_epochs": 0}, "model.refresh_epochs is 0"),
    "power": ({"power": -1.0}, "model.power is -1.0"),
    "deviation": ({"head_std": -0.1}, "model.head_std is -0.1: choose 0 or more"),
    "optimizer": ({"optimizer": {"learning_rat": 1}}, "did you mean 'learning_rate'"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    settings, message = ERRORS[name]
    with pytest.raises(UserError, match=message):
        build(**settings)


def test_views_of_different_widths_are_refused():
    batch = {**batch_of(), "view1": np.ones((N, 4), np.float32)}
    with pytest.raises(UserError, match=r"widths 6, 4: .*multiview_pca"):
        build().init(KEY, batch)
