"""BDCL in CMMC: its losses against a textbook loop, missing views, and training without a third stage."""

from functools import partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.errors import UserError
from clustering_jax.losses import nt_xent
from clustering_jax.method import Spec
from clustering_jax.methods.cmmc import bdcl
from clustering_jax.methods.cmmc import method as cmmc
from clustering_jax.methods.cmmc.network import NOISE, Network, Outputs
from tests.losses.test_contrastive import softmax
from tests.methods import views_toy as toy

KEY, K, N = jax.random.key(3), 3, 12
RNG = np.random.default_rng(0)
WEIGHTS = {"feature_temperature": 0.5, "pair_weight": 0.7, "decorrelation_weight": 0.3}


def outputs(views=3):
    h = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in RNG.normal(size=(views, N, 5))]
    q, noisy = ([softmax(x) for x in 2 * RNG.normal(size=(views, N, K))] for _ in range(2))
    return Outputs(h, q, [], list(RNG.normal(size=(views, N, 6))), noisy)


def columns_apart(x):
    x = x / np.linalg.norm(x, axis=0)
    return np.mean([(x[:, a] @ x[:, b] - (a == b)) ** 2 for a in range(x.shape[1]) for b in range(x.shape[1])])


def textbook(found, rows=slice(None)):
    """All rows have all views."""
    h, q, z, noisy = ([x[rows] for x in xs] for xs in (found.h, found.q, found.z, found.noisy))
    terms = dict.fromkeys(("feature", "agreement", "decorrelation", "imbalance"), 0.0)
    for v, w in combinations(range(len(h)), 2):
        terms["feature"] += 0.7 * nt_xent(jnp.array(h[v]), jnp.array(h[w]), temperature=0.5)
        for p in (q[v], noisy[v]):
            terms["agreement"] -= 0.7 / 2 * np.mean([np.log(a @ b) for a, b in zip(p, q[w], strict=True)])
    for v in range(len(h)):
        terms["decorrelation"] += 0.3 * (columns_apart(z[v]) + columns_apart(q[v]))
        mean = q[v].mean(0)
        terms["imbalance"] += 2 * (np.log(K) + mean @ np.log(mean))
    return terms


def test_the_losses_are_the_textbook_loop():
    found = outputs()
    actual = bdcl.bdcl_losses(found, [None] * 3, **WEIGHTS)
    assert {k: pytest.approx(float(v), rel=1e-5) for k, v in actual.items()} == textbook(found)


def test_rows_that_lack_views_do_not_count():
    found = outputs(2)
    mask = np.arange(N) < 9
    actual = bdcl.bdcl_losses(found, [jnp.array(mask)] * 2, **WEIGHTS)
    assert {k: pytest.approx(float(v), rel=1e-5) for k, v in actual.items()} == textbook(found, mask)


def batch_of(views=2):
    return {**toy.features(16, views=views), "index": np.arange(16, dtype=np.int32)}


@pytest.mark.long
def test_the_noise_is_small_and_depends_on_the_row_alone():
    network, batch = Network(K, (7,), 6, 5, jnp.float32), batch_of()
    variables = jax.jit(partial(network.init, decode=True))(KEY, batch)
    noisy = jax.jit(partial(network.apply, noise=KEY))
    whole, part = noisy(variables, batch), noisy(variables, {name: x[4:9] for name, x in batch.items()})
    for v in range(2):
        np.testing.assert_allclose(part.noisy[v], whole.noisy[v][4:9], rtol=1e-5)
        change = np.abs(whole.noisy[v] - whole.q[v])
        assert 0 < change.max() < NOISE * 6
    assert not network.apply(variables, batch).noisy


@pytest.mark.long
def test_training_lowers_the_losses_and_has_no_third_stage(tmp_path):
    settings = {"objective": "bdcl", "matching_steps": 0}
    method = cmmc.build(Spec(K, 8, 20, {"train": 5}), optimizer={"learning_rate": 1e-2}, **{**toy.SMALL, **settings})
    assert [phase.name for phase in method.phases] == ["reconstruct", "contrast"]
    data = toy.dataset(views=2)
    state, _ = toy.run(tmp_path / "run", method, data)
    p = method.predict(jax.device_get(state.variables), data.features)
    table = np.histogram2d(toy_labels(), np.asarray(p).argmax(1), bins=K)[0]
    assert (table.max(1).sum()) / len(p) > 0.9


def toy_labels():
    """The labels that `toy.features` draws first."""
    return np.random.default_rng(0).integers(K, size=40)


@pytest.mark.long
def test_bdcl_without_its_own_terms_is_cmmcs_contrast_of_features():
    batch = batch_of()
    base = {**toy.SMALL, "objective": "bdcl", "decorrelation_weight": 0.0}
    spec = Spec(K, 8, 1, {"train": 5})
    variables = jax.jit(cmmc.build(spec, **toy.SMALL).init)(KEY, batch)
    mine, theirs = (
        cmmc.build(spec, **settings).phases[1].objectives[0].loss(variables, batch, KEY)[1][1]
        for settings in (base, toy.SMALL)
    )
    assert float(mine["feature"]) == pytest.approx(float(theirs["feature"]), rel=1e-6)
    assert float(mine["reconstruction"]) == pytest.approx(float(theirs["reconstruction"]), rel=1e-6)
    assert float(mine["decorrelation"]) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"objective": "bdlc"}, "bdcl"), ({"body": "cnn"}, "conv"), ({"pair_weight": -1.0}, "pair_weight")],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        cmmc.build(Spec(K, 8, 1, {"train": 5}), **settings)


def test_a_convolution_needs_images():
    method = cmmc.build(Spec(K, 8, 1, {"train": 5}), **{**toy.SMALL, "body": "conv"})
    assert method.avoid_scan_on_cpu
    with pytest.raises(UserError, match="6 columns, which are no square image"):
        method.init(KEY, batch_of())
