"""Options of CMMC that are not in the paper: least lengths, weights of the views, and an end when nothing changes."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.losses import cluster_contrast, nt_xent, pseudo_label_loss
from clustering_jax.methods.cmmc import bdcl
from clustering_jax.methods.cmmc import method as cmmc
from clustering_jax.methods.cmmc.method import matching_loss
from clustering_jax.methods.cmmc.network import Outputs
from clustering_jax.methods.cmmc.pseudo_labels import named_once
from clustering_jax.methods.cmmc.settling import STEPS, settling
from clustering_jax.methods.cmmc.weighting import agreement_weights
from clustering_jax.methods.views import mixture
from clustering_jax.settings.cmmc import CMMC
from tests.methods import views_toy as toy
from tests.methods.cmmc.test_cmmc import TEMPERATURES, K, batch_of, random_outputs

KEY = jax.random.key(0)
WEIGHTS = np.array([1.5, 0.3, 1.2], np.float32)


@pytest.mark.parametrize(("least", "lengths"), [(0, (5, 5)), (7, (7, 7)), (3, (5, 5))])
def test_the_first_stages_have_a_least_number_of_steps(least, lengths):
    assert tuple(phase.num_steps for phase in toy.build(minimum_steps=least).phases[:2]) == lengths
    assert [p.name for p in toy.build(minimum_steps=least, reconstruction_epochs=0).phases] == ["contrast", "match"]


@pytest.mark.parametrize("losses", ["mflvc", "bdcl"])
def test_the_contrast_of_a_pair_has_the_product_of_the_weights(losses):
    outputs, pairs = random_outputs(), list(combinations(range(3), 2))
    products = [WEIGHTS[v] * WEIGHTS[w] for v, w in pairs]
    feature = [nt_xent(outputs.h[v], outputs.h[w], temperature=0.5) for v, w in pairs]
    if losses == "mflvc":
        found = cmmc.contrast_losses(outputs, [None] * 3, **TEMPERATURES, entropy_per_pair=True, weights=WEIGHTS)
        cluster = [cluster_contrast(outputs.q[v], outputs.q[w], temperature=1.0) for v, w in pairs]
        np.testing.assert_allclose(found["cluster"], np.dot(products, cluster), rtol=1e-5)
    else:
        outputs = outputs._replace(z=outputs.h, noisy=outputs.q)
        settings = {"feature_temperature": 0.5, "pair_weight": 1.0, "decorrelation_weight": 1.0}
        found = bdcl.bdcl_losses(outputs, [None] * 3, **settings, weights=WEIGHTS)
        agreement = [-np.log((outputs.q[v] * outputs.q[w]).sum(1)).mean() for v, w in pairs]
        np.testing.assert_allclose(found["agreement"], np.dot(products, agreement), rtol=1e-5)
    np.testing.assert_allclose(found["feature"], np.dot(products, feature), rtol=1e-5)


def test_the_mixture_is_the_weighted_mean_over_the_views_of_a_row():
    q = np.stack(random_outputs().q, 1)
    mask = np.random.default_rng(2).random((12, 3)) < 0.6
    mask[0] = False
    found = np.asarray(mixture(jnp.asarray(q), jnp.asarray(mask), jnp.asarray(WEIGHTS)))
    for row, present, p in zip(q, mask, found, strict=True):
        expected = np.average(row[present], axis=0, weights=WEIGHTS[present]) if present.any() else np.full(K, 1 / K)
        np.testing.assert_allclose(p, expected, rtol=1e-5)


def planted(n=300, k=4):
    """Two views of the same clusters and one of noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(k, size=n)
    views = [4 * rng.normal(size=(k, d))[labels] + rng.normal(size=(n, d)) for d in (5, 8)]
    return [x.astype(np.float32) for x in (*views, rng.normal(size=(n, 6)))]


def test_a_view_of_noise_has_a_small_weight():
    views = planted()
    weights = agreement_weights(KEY, views, np.ones((300, 3), bool), 4)
    assert weights[2] < 0.2 < 1 < weights[:2].min() and weights.mean() == pytest.approx(1)
    assert agreement_weights(KEY, [np.zeros((20, 2), np.float32)] * 2, np.ones((20, 2), bool), 3).tolist() == [1, 1]


@pytest.mark.long
def test_weights_of_the_first_contrastive_step_reach_the_prediction():
    method, batch = toy.build(view_weights="agreement"), batch_of()
    variables = method.init(KEY, batch)
    np.testing.assert_array_equal(variables["views"]["weight"], np.ones(3))
    targets = method.phases[1].targets(KEY, variables, lambda f, v: np.asarray(f(v, batch)))
    assert targets["weight"].shape == (16, 3) and (targets["weight"] == targets["weight"][0]).all()
    (_, (changed, _)) = method.phases[1].objectives[0].loss(variables, {**batch, **targets}, KEY)
    variables = {**variables, **changed}
    views = [{k: batch[k] for k in (f"view{v}", "index")} for v in range(3)]
    q = [toy.build().predict({"params": variables["params"]}, view) for view in views]
    expected = np.average(q, axis=0, weights=targets["weight"][0])
    np.testing.assert_allclose(method.predict(variables, batch), expected, rtol=1e-5)
    for view, alone in zip(views, q, strict=True):
        np.testing.assert_allclose(method.predict(variables, view), alone, rtol=1e-5)
    two = {k: batch[k] for k in ("view0", "view2", "index")}
    expected = np.average([q[0], q[2]], axis=0, weights=targets["weight"][0][[0, 2]])
    np.testing.assert_allclose(method.predict(variables, two), expected, rtol=1e-5)


def test_equal_weights_add_nothing_to_the_variables():
    assert CMMC().view_weights == "equal" and not CMMC().until_settled
    assert set(jax.eval_shape(toy.build().init, KEY, batch_of())) == {"params"}


@pytest.mark.parametrize("heavy", [0, 2])
def test_pseudo_labels_get_the_numbers_of_their_clusters_in_all_views_alike(heavy):
    rng, k, n = np.random.default_rng(3), 6, 200
    clusters = np.arange(n) % k
    present = np.where(np.isin(clusters, (4, 5)), 0, clusters)  # Two clusters are empty.
    pseudo = np.stack([rng.permutation(k)[clusters] for _ in range(3)], 1)
    pseudo[:5, 1] = -1
    named = named_once(pseudo, present, k, np.eye(3)[heavy] + 1)
    assert named.dtype == np.int32 and (named[:5, 1] == -1).all()
    for v, rows in enumerate(pseudo.T):
        pairs = {(old, new) for old, new in zip(rows, named[:, v], strict=True) if old >= 0}
        assert len(pairs) == len({new for _, new in pairs}) == k, "a renaming"
    kept = (clusters > 0) & (clusters < 4)
    np.testing.assert_array_equal(named[kept, 0], clusters[kept])
    np.testing.assert_array_equal(named[:, 0], named[:, 2])
    np.testing.assert_array_equal(named[5:, 1], named[5:, 0])


def test_the_view_of_the_largest_weight_names_the_clusters():
    clusters = np.arange(40) % 2
    pseudo = np.stack([np.arange(40) // 20, 1 - clusters], 1)
    pseudo[::4, 1] = 0
    named = [named_once(pseudo, clusters, 2, np.array(w)) for w in ((1, 3), (3, 1))]
    np.testing.assert_array_equal(named[0][:, 1], 1 - pseudo[:, 1])
    np.testing.assert_array_equal(named[1][:, 0], pseudo[:, 0])


def test_named_labels_are_not_matched_again():
    q = [jax.nn.softmax(jax.random.normal(jax.random.fold_in(KEY, v), (12, 4))) for v in range(2)]
    labels = jnp.stack([jnp.arange(12) % 4, jnp.arange(12) % 3], 1)
    value, _ = matching_loss(lambda _: Outputs([], q, []), {"pseudo": labels}, 4, False, named=True)
    expected = sum(pseudo_label_loss(q[v], labels[:, v]) for v in range(2))
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize(("changed", "ends"), [(0, True), (1, True), (2, False)])
def test_the_stage_ends_when_at_most_a_thousandth_of_the_rows_changes(changed, ends):
    before = np.arange(1000) % 4
    now = before.copy()
    now[:changed] = (now[:changed] + 1) % 4
    fields = settling(lambda *_: {"pseudo": before}, None)
    assert fields["refresh"].every == STEPS
    first = fields["targets"](KEY, None, lambda *_: np.eye(4)[before])
    assert set(first) == {"pseudo", "cluster"}
    found = fields["refresh"].update(KEY, None, lambda *_: np.eye(4)[now], first)
    assert (found is None) == ends
    if not ends:
        np.testing.assert_array_equal(found["cluster"], now)
        np.testing.assert_array_equal(found["pseudo"], before)


@pytest.mark.long
def test_a_settled_run_stops_early(tmp_path):
    settings = {"matching_steps": 40 * STEPS, "until_settled": True, "match_once": True, "double_softmax": False}
    state, _ = toy.run(tmp_path / "run", toy.build(**settings), toy.dataset())
    assert 10 + STEPS <= int(state.step) < 10 + 40 * STEPS
