"""Compares the losses of CMMC with the authors' values; tests missing views, chunks, prediction and settings."""

from functools import cache, partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from clustering_jax.errors import UserError
from clustering_jax.losses import cluster_contrast, imbalance, nt_xent
from clustering_jax.method import Spec
from clustering_jax.methods import from_config
from clustering_jax.methods.cmmc import method as cmmc
from tests.losses.test_contrastive import assert_close, softmax
from tests.methods import views_toy as toy
from tests.paths import FIXTURES

FIXTURES = np.load(FIXTURES / "cmmc_losses.npz")
KEY, K = jax.random.key(3), toy.CLUSTERS
TEMPERATURES = {"feature_temperature": 0.5, "label_temperature": 1.0}
METHOD = toy.build()
STAGES = {phase.name: phase.objectives[0].loss for phase in METHOD.phases}
SWITCHES = pytest.mark.parametrize("per_pair", [True, False])


def batch_of(missing=False, seed=0):
    """A batch of the third stage, including pseudo-labels."""
    batch = toy.features(16, missing=missing, seed=seed)
    pseudo = np.random.default_rng(7).integers(K, size=(16, 3)).astype(np.int32)
    pseudo = np.where(batch.get("mask", True), pseudo, -1)
    return {**batch, "index": np.arange(16, dtype=np.int32), "pseudo": pseudo}


VARIABLES = jax.jit(METHOD.init)(jax.random.key(0), batch_of())


def forward(variables, batch, decode=False):
    return cmmc.Network(K, (7, 8), 6, 5, jnp.float32).apply(variables, batch, decode=decode)


@cache
def compiled(loss):
    return jax.jit(jax.value_and_grad(lambda params, batch: loss({"params": params}, batch, KEY)[0]))


def value_and_grads(loss, batch):
    return jax.device_get(compiled(loss)(VARIABLES["params"], batch))


def assert_equal_steps(one, other, tolerance=1e-5):
    """Compares values, and gradients relative to the largest entry of each array."""
    np.testing.assert_allclose(one[0], other[0], rtol=tolerance)
    for a, b in zip(jax.tree.leaves(one[1]), jax.tree.leaves(other[1]), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * max(np.abs(a).max(), 1e-3))


# --- The contrast


def random_outputs(n=12, views=3):
    rng = np.random.default_rng(0)
    h = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(views, n, 5))]
    return cmmc.Outputs(h, [softmax(x) for x in 2 * rng.normal(size=(views, n, K))], [])


@pytest.mark.parametrize("case", ["0", pytest.param("1", marks=pytest.mark.long)])
def test_two_views_have_the_values_and_gradients_of_the_authors(case):
    names = {"feature": f"cmmc_feature/{case}", "label": f"cmmc_label/{case}"}
    inputs = {k: [FIXTURES[f"{name}/in{i}"] for i in (0, 1)] for k, name in names.items()}
    temperatures = {f"{k}_temperature": float(FIXTURES[f"{name}/temperature"]) for k, name in names.items()}

    def losses(h, q):
        terms = cmmc.contrast_losses(cmmc.Outputs(h, q, []), [None] * 2, **temperatures, entropy_per_pair=True)
        return jnp.stack([terms["feature"], terms["cluster"] + terms["imbalance"]])

    with jax.enable_x64(True):
        h, q = ([jnp.asarray(x) for x in inputs[k]] for k in ("feature", "label"))
        values, back = jax.vjp(losses, h, q)
        assert_close(values, [FIXTURES[f"{name}/value"] for name in names.values()], 1e-10)
        for gradients, name in zip(back(jnp.ones(2)), names.values(), strict=True):
            for i, gradient in enumerate(gradients):
                expected = FIXTURES[f"{name}/grad{i}"]
                if "label" in name:  # A gradient through softmax does not depend on a constant per row.
                    gradient, expected = (np.asarray(x) - x.mean(1, keepdims=True) for x in (gradient, expected))
                assert_close(gradient, expected, 1e-10)


def contrast_by_hand(outputs, present, per_pair):
    """A loop over pairs of views, on the rows that have both."""
    feature = cluster = balance = 0.0
    for v, w in combinations(range(len(outputs.h)), 2):
        rows = present[v] & present[w]
        feature += nt_xent(outputs.h[v][rows], outputs.h[w][rows], temperature=0.5)
        cluster += cluster_contrast(outputs.q[v][rows], outputs.q[w][rows], temperature=1.0)
        balance += per_pair * (imbalance(outputs.q[v][rows]) + imbalance(outputs.q[w][rows]))
    if not per_pair:
        balance = sum(imbalance(q[rows]) for q, rows in zip(outputs.q, present, strict=True))
    return {"feature": feature, "cluster": cluster, "imbalance": balance}


@SWITCHES
@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.long
def test_contrast_is_the_sum_over_pairs_of_views_on_rows_with_both(views, missing, per_pair):
    outputs = random_outputs(views=views)
    present = np.random.default_rng(1).random((views, 12)) < (0.7 if missing else 2)
    terms = cmmc.contrast_losses(outputs, list(present), **TEMPERATURES, entropy_per_pair=per_pair)
    for name, expected in contrast_by_hand(outputs, present, per_pair).items():
        np.testing.assert_allclose(terms[name], expected, rtol=1e-5, err_msg=name)


def test_balance_per_pair_counts_each_view_v_minus_1_times():
    one, other = (
        cmmc.contrast_losses(random_outputs(), [None] * 3, **TEMPERATURES, entropy_per_pair=x)["imbalance"]
        for x in (True, False)
    )
    np.testing.assert_allclose(one, 2 * other, rtol=1e-5)


ROWS, COLUMNS = np.random.default_rng(1).permutation(12), np.array([2, 0, 1])
SYMMETRIES = {
    "rows permuted": lambda x, is_q: [y[ROWS] for y in x],
    "views permuted": lambda x, is_q: [x[i] for i in (2, 0, 1)],
    "clusters relabelled": lambda x, is_q: [y[:, COLUMNS] for y in x] if is_q else x,
}


@SWITCHES
@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_symmetries_of_the_contrast(symmetry, per_pair):
    losses = partial(cmmc.contrast_losses, masks=[None] * 3, **TEMPERATURES, entropy_per_pair=per_pair)
    outputs, move = random_outputs(), SYMMETRIES[symmetry]
    terms, moved = losses(outputs), losses(cmmc.Outputs(move(outputs.h, False), move(outputs.q, True), []))
    for name, value in terms.items():
        np.testing.assert_allclose(moved[name], value, rtol=1e-5, err_msg=name)


def test_relabelling_clusters_in_one_view_increases_the_loss():
    outputs = random_outputs()
    outputs = outputs._replace(q=[outputs.q[0]] * 3)
    losses = partial(cmmc.contrast_losses, masks=[None] * 3, **TEMPERATURES, entropy_per_pair=True)
    moved = losses(outputs._replace(q=[outputs.q[0][:, COLUMNS], *outputs.q[1:]]))
    assert moved["cluster"] > losses(outputs)["cluster"] + 0.01


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.long
def test_reconstruction_is_the_mean_over_present_entries_of_each_view(missing):
    batch = batch_of(missing)
    mask, outputs = batch.get("mask", np.ones((16, 3), bool)), forward(VARIABLES, batch, decode=True)
    errors = [np.mean((batch[f"view{v}"] - outputs.x[v])[mask[:, v]] ** 2) for v in range(3)]
    np.testing.assert_allclose(STAGES["reconstruct"](VARIABLES, batch, KEY)[0], sum(errors), rtol=1e-5)


# --- Pseudo-labels


def matched_by_scipy(q, pseudo):
    """Returns the new labels, and whether the best matching is unique."""
    pred, rows = np.asarray(q).argmax(1), pseudo >= 0
    table = np.zeros((K, K), int)
    np.add.at(table, (pseudo[rows], pred[rows]), 1)
    names = linear_sum_assignment(table, maximize=True)[1]
    return np.where(rows, names[pseudo], -1)


def agreeing(k=K, n=60):
    """Assignments of three views that agree with renamed pseudo-labels in most rows. Some rows have no pseudo-label."""
    rng = np.random.default_rng(0)
    pseudo = rng.integers(k, size=(n, 3)).astype(np.int32)
    names = np.stack([rng.permutation(k) for _ in range(3)])
    q = [softmax(4 * np.eye(k)[names[v][pseudo[:, v]]] + rng.normal(size=(n, k))) for v in range(3)]
    return q, np.where(rng.random((n, 3)) < 0.2, -1, pseudo), names


def test_matched_targets_equal_scipy():
    q, pseudo, names = agreeing()
    targets = jax.jit(partial(cmmc.matched_targets, k=K))(q, pseudo)
    for v in range(3):
        np.testing.assert_array_equal(targets[v], matched_by_scipy(q[v], pseudo[:, v]))
        there = pseudo[:, v] >= 0
        np.testing.assert_array_equal(np.asarray(targets[v])[there], names[v][pseudo[there, v]])


@pytest.mark.parametrize("double_softmax", [True, False])
@pytest.mark.long
def test_the_numbers_of_pseudo_labels_do_not_matter(double_softmax):
    q, pseudo, _ = agreeing()
    names = np.array([1, 2, 0, -1])
    batch = {"pseudo": pseudo, "index": np.arange(60), **{f"view{v}": x for v, x in enumerate(q)}}
    value, renamed = (
        cmmc.matching_loss(lambda _: cmmc.Outputs([], q, []), {**batch, "pseudo": p}, K, double_softmax)[0]
        for p in (pseudo, names[pseudo])
    )
    p = [softmax(x) if double_softmax else x for x in q]
    targets = [matched_by_scipy(q[v], pseudo[:, v]) for v in range(3)]
    each = [-np.log(p[v][y >= 0, y[y >= 0]]).mean() for v, y in enumerate(targets)]
    np.testing.assert_allclose([value, renamed], sum(each), rtol=1e-5)


@pytest.mark.parametrize(
    "stage, size, missing", [(0, 5, True), (1, 5, True), (2, 5, True), (2, 8, False), (2, 30, True)]
)
@pytest.mark.long
def test_chunks_do_not_change_value_and_gradient(stage, size, missing):
    batch = batch_of(missing)
    whole, parts = (value_and_grads(toy.build(chunk=c).phases[stage].objectives[0].loss, batch) for c in (0, size))
    assert_equal_steps(whole, parts, 1e-6)
    assert any(x.any() for x in jax.tree.leaves(whole[1]))


@pytest.mark.long
def test_pseudo_labels_come_from_k_means_on_scaled_columns_of_present_rows():
    rng = np.random.default_rng(0)
    labels, mask = rng.integers(K, size=(60, 2)), rng.random((60, 2)) < 0.8
    features = 6 * rng.normal(size=(2, K, 4))[[0, 1], labels] + rng.normal(size=(60, 2, 4))
    features[..., 0] = 500 * rng.normal(size=(60, 2))  # Without the scaling, only this column would have an effect.
    features[..., 1] = 3.0
    features[~mask] = 1e6
    pseudo = cmmc.pseudo_labels(KEY, features.astype(np.float32), mask, K, 20)["pseudo"]
    assert pseudo.dtype == np.int32 and (pseudo >= 0).tolist() == mask.tolist()
    for v in range(2):
        rows = features[mask[:, v], v]
        scaled = (rows - rows.min(0)) / np.maximum(np.ptp(rows, axis=0), 1e-9)
        expected = KMeans(K, n_init=20, random_state=0).fit_predict(scaled)
        assert adjusted_rand_score(expected, pseudo[mask[:, v], v]) > 0.95


@pytest.mark.long
def test_a_view_with_fewer_rows_than_clusters():
    mask = np.ones((20, 2), bool)
    mask[2:, 1] = False
    features = np.random.default_rng(1).normal(size=(20, 2, 4)).astype(np.float32)
    pseudo = cmmc.pseudo_labels(KEY, features, mask, K, 2)["pseudo"]
    assert len(set(pseudo[:, 0])) == K and sorted(pseudo[:2, 1]) == [0, 1] and (pseudo[2:, 1] == -1).all()


def complementary(n=300):
    """Two views of six clusters. One view separates three pairs; the other, a thousand times larger, the halves."""
    rng = np.random.default_rng(4)
    labels = rng.integers(6, size=n)
    first, second = 8 * rng.normal(size=(3, 5))[labels // 2], 8e3 * rng.normal(size=(2, 3))[labels % 2]
    return labels, [(x + x.std() / 20 * rng.normal(size=x.shape)).astype(np.float32) for x in (first, second)]


@pytest.mark.long
def test_joint_pseudo_labels_use_the_information_of_all_views():
    labels, views = complementary()
    mask = np.ones((300, 2), bool)
    mask[:20, 0] = mask[20:30] = False
    views[0][:20], views[1][20:30] = 1e6, 1e6
    pseudo = cmmc.joint_pseudo_labels(KEY, views, mask, 6, 20)["pseudo"]
    assert pseudo.dtype == np.int32 and (pseudo >= 0).tolist() == mask.tolist()
    np.testing.assert_array_equal(*pseudo[30:].T)
    assert adjusted_rand_score(labels[30:], pseudo[30:, 0]) == 1


@pytest.mark.long
def test_pseudo_labels_come_from_the_selected_source():
    labels, views = complementary()
    batch = {f"view{v}": x for v, x in enumerate(views)}

    def infer(function, variables):
        return np.asarray(function(variables, batch))

    for source, best in (("views", True), ("features", False)):
        method = cmmc.build(
            Spec(6, 8, 1, {"train": 2}), **{**toy.SMALL, "kmeans_restarts": 10, "pseudo_labels_of": source}
        )
        pseudo = method.phases[2].targets(KEY, method.init(KEY, batch), infer)["pseudo"]
        assert (adjusted_rand_score(labels, pseudo[:, 0]) == 1) is best


def pseudo_and_joint(source):
    """The pseudo-labels of a new network for a batch with missing views, its prediction, and the mask."""
    batch, method = batch_of(True), toy.build(pseudo_labels_of=source)
    variables = method.init(KEY, batch)
    pseudo = method.phases[2].targets(KEY, variables, lambda f, v: np.asarray(f(v, batch)))["pseudo"]
    assert pseudo.dtype == np.int32 and not batch["mask"].all()
    return pseudo, np.asarray(method.predict(variables, batch)).argmax(1)[:, None], batch["mask"]


@pytest.mark.long
def test_held_out_pseudo_labels_correct_the_prediction(monkeypatch):
    monkeypatch.setattr(cmmc, "held_out_probabilities", lambda key, views, mask, labels, k: np.eye(k)[(labels + 1) % k])
    monkeypatch.setattr(cmmc, "confident_labels", lambda labels, probabilities: probabilities.argmax(1))
    pseudo, joint, mask = pseudo_and_joint("held_out")
    np.testing.assert_array_equal(pseudo, np.where(mask, (joint + 1) % K, -1))


# --- Missing views


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.long
def test_a_mask_of_all_views_changes_nothing(stage):
    batch = batch_of()
    masked = {**batch, "mask": np.ones((16, 3), bool)}
    assert_equal_steps(*(value_and_grads(STAGES[stage], b) for b in (batch, masked)))
    for function in (METHOD.embed, METHOD.predict):
        np.testing.assert_allclose(function(VARIABLES, batch), function(VARIABLES, masked), rtol=1e-6)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.long
def test_the_values_of_a_missing_view_do_not_matter(stage):
    batch = batch_of(missing=True)
    noise = {f"view{v}": np.random.default_rng(v).normal(size=(16, d)) * 1e3 for v, d in enumerate(toy.WIDTHS)}
    other = {k: np.where(batch["mask"][:, [int(k[-1])]], batch[k], x).astype(np.float32) for k, x in noise.items()}
    one, two = (value_and_grads(STAGES[stage], b) for b in (batch, {**batch, **other}))
    assert_equal_steps(one, two)
    unmasked = {k: v for k, v in batch.items() if k != "mask"}
    if stage != "match":  # In this stage the pseudo-labels mark the missing views.
        assert abs(value_and_grads(STAGES[stage], unmasked)[0] - one[0]) > 1e-3
    for function in (METHOD.embed, METHOD.predict):
        np.testing.assert_allclose(*(function(VARIABLES, b) for b in (batch, {**batch, **other})), rtol=1e-5)


# --- Prediction


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kept", [c for r in (1, 2, 3) for c in combinations(range(3), r)], ids=str)
def test_prediction_is_the_mean_over_the_given_views(kept, missing):
    batch = batch_of(missing)
    given = {k: v for k, v in batch.items() if not k.startswith("view") or int(k[-1]) in kept}
    q, mask = np.stack(forward(VARIABLES, batch).q, axis=1), batch.get("mask", np.ones((16, 3), bool))
    rows = mask[:, kept].any(1)
    weights = (mask[:, kept] / np.maximum(mask[:, kept].sum(1, keepdims=True), 1))[..., None]
    p = np.asarray(METHOD.predict(VARIABLES, given))
    np.testing.assert_allclose(p[rows], (q[:, kept] * weights).sum(1)[rows], rtol=1e-5)
    assert p.shape == (16, K) and rows.sum() > 4
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(p[~rows], 1 / K, rtol=1e-6)


def test_views_are_in_the_order_of_their_numbers():
    assert cmmc.view_names({"view10": 0, "index": 0, "view2": 0, "mask": 0, "view0": 0}) == ["view0", "view2", "view10"]


def test_embedding_concatenates_features_with_zeros_for_missing_views():
    batch = batch_of(missing=True)
    embedding = np.asarray(METHOD.embed(VARIABLES, batch))
    assert embedding.shape == (16, 15)
    norms = np.linalg.norm(embedding.reshape(16, 3, 5), axis=2)
    np.testing.assert_allclose(norms, batch["mask"], atol=1e-6)
    part = METHOD.embed(VARIABLES, {k: v[3:7] for k, v in batch.items()})
    np.testing.assert_allclose(part, embedding[3:7], rtol=1e-5, atol=1e-6)


# --- Settings


@pytest.mark.long
def test_bfloat16_keeps_parameters_losses_and_predictions_in_float32():
    half, batch = toy.build(dtype="bfloat16"), batch_of()
    variables = jax.eval_shape(half.init, jax.random.key(0), batch)
    assert {str(x.dtype) for x in jax.tree.leaves(variables)} == {"float32"}
    for phase in half.phases:
        value, grads = value_and_grads(phase.objectives[0].loss, batch)
        exact = value_and_grads(STAGES[phase.name], batch)[0]
        assert value.dtype == np.float32 and value != exact
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
        np.testing.assert_allclose(value, exact, rtol=0.05)
    for function, reference in ((half.embed, METHOD.embed), (half.predict, METHOD.predict)):
        got = function(VARIABLES, batch)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, reference(VARIABLES, batch), atol=0.05)


def test_stages_share_one_optimiser():
    method = toy.build(reconstruction_epochs=2, matching_steps=7)
    assert [(p.name, p.num_steps, p.whole) for p in method.phases] == [
        ("reconstruct", 10, False),
        ("contrast", 5, False),
        ("match", 7, True),
    ]
    assert len({id(p.objectives[0].tx) for p in method.phases}) == 1
    assert [p.name for p in toy.build(reconstruction_epochs=0, matching_steps=0).phases] == ["contrast"]


@pytest.mark.parametrize("setting", ["feature", "label"])
def test_temperatures_change_their_terms(setting):
    terms, changed = (
        m.phases[1].objectives[0].loss(VARIABLES, batch_of(), KEY)[1][1]
        for m in (METHOD, toy.build(**{f"{setting}_temperature": 0.2}))
    )
    differ = {name for name in terms if abs(terms[name] - changed[name]) > 1e-3}
    assert differ == {"feature" if setting == "feature" else "cluster"}
    assert set(terms) == {"feature", "cluster", "imbalance", "reconstruction", "occupied", "entropy"}


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"dtype": "float64"}, "bfloat16"),
        ({"optimizer": {"lr": 1.0}}, "learning_rate"),
        ({"optimizer": {"schedule": "cosin"}}, "cosine"),
        ({"latent_dim": 0}, "model.latent_dim is 0"),
        ({"hidden": (8, -1)}, "model.hidden is -1"),
    ],
    ids=str,
)
def test_wrong_settings_suggest_the_nearest(settings, words):
    with pytest.raises(UserError, match=words) as caught:
        toy.build(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes, words",
    [({"method": "cmcm"}, "cmmc"), ({"model": {"hiden": (3,)}}, "hidden"), ({"augment": {}}, "augment")],
    ids=str,
)
def test_a_config_is_refused_by_name(changes, words):
    config = {"method": "cmmc", "num_clusters": 3, "batch_size": 8, "epochs": 1, "model": {}, "optimizer": {}}
    with pytest.raises(UserError, match=words):
        from_config({**config, **changes}, {"train": 5})


def test_defaults_equal_the_code_of_the_authors(monkeypatch):
    network = {}
    monkeypatch.setattr(cmmc, "Network", lambda *settings: network.update(settings=settings))
    method = cmmc.build(Spec(10, 256, 50, {"train": 9}))
    assert network["settings"] == (10, (500, 500, 2000), 512, 128, jnp.float32, "mlp")
    assert [p.num_steps for p in method.phases] == [1800, 450, 50]


def test_a_row_without_any_view_has_equal_probabilities():
    batch = {"view0": np.ones((2, 3), np.float32), "mask": np.array([[True, True], [False, True]])}
    q = jnp.array([[0.9, 0.1], [0.8, 0.2]])
    found = cmmc.assignments(cmmc.Outputs([], [q], []), cmmc.view_masks(batch))
    np.testing.assert_allclose(found, [[0.9, 0.1], [0.5, 0.5]])
