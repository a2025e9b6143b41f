"""Tests CC: its loss, its two views, its streams, and its independence of the number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from clustering_jax.augment.pipeline import ten_crops, two_views
from clustering_jax.augment.policies import cc_policy
from clustering_jax.data.images.folder import synthetic
from clustering_jax.errors import UserError
from clustering_jax.losses import cluster_contrast, imbalance, normalize, nt_xent
from clustering_jax.method import Spec
from clustering_jax.methods.cc import method as cc
from clustering_jax.parallel import batch_sharding, data_mesh, replicated

SPEC = Spec(5, 16, 2, {"train": 3})
SMALL = {"backbone": "resnet18", "width": 4, "image_size": 16}
DATA = synthetic(n=48, size=20, num_clusters=5)
BATCH = {"image": DATA.features["image"][:16], "index": np.arange(16, dtype=np.int32)}
KEY = jax.random.key(3)


built = functools.cache(functools.partial(cc.build, SPEC, **SMALL))


@pytest.fixture(scope="module")
def method():
    return built()


@pytest.fixture(scope="module")
def variables(method):
    return jax.jit(method.init)(jax.random.key(0), BATCH)


def loss(method, variables, batch=BATCH, key=KEY):
    return jax.jit(method.phases[0].objectives[0].loss)(variables, batch, key)


def by_hand(variables):
    """The procedure of the paper: two passes of the network. The second starts with the statistics of the first."""
    network = cc.Network("resnet18", "imagenet", 4, 5, 128, jnp.float32)
    outputs = []
    for view in two_views(KEY, BATCH["image"], BATCH["index"], cc_policy(16, 0.5, False)):
        output, changed = network.apply(variables, view, True, mutable=["batch_stats"])
        variables = {**variables, **changed}
        outputs.append(output)
    (g_a, c_a), (g_b, c_b) = outputs
    instance = nt_xent(normalize(g_a), normalize(g_b), temperature=0.5)
    cluster = cluster_contrast(c_a, c_b, temperature=1.0)
    return instance, cluster, imbalance(c_a) + imbalance(c_b), changed


@pytest.mark.long
def test_the_loss_equals_the_paper_with_two_passes(method, variables):
    value, (changed, terms) = loss(method, variables)
    instance, cluster, penalty, expected = jax.jit(by_hand)(variables)
    np.testing.assert_allclose(value, instance + cluster + penalty, rtol=1e-5)
    np.testing.assert_allclose([terms["instance"], terms["cluster"]], [instance, cluster], rtol=1e-5)
    np.testing.assert_allclose(terms["imbalance"], penalty, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), changed, expected)


@pytest.mark.long
def test_defaults_equal_the_published_settings(variables):
    one = built()
    other = cc.build(
        SPEC,
        **SMALL,
        instance_temperature=0.5,
        cluster_temperature=1.0,
        instance_dim=128,
        augment={"kind": "natural", "strength": 0.5, "blur": False},
    )
    assert float(loss(one, variables)[0]) == float(loss(other, variables)[0])


@pytest.mark.parametrize("setting", [{"instance_temperature": 0.1}, {"cluster_temperature": 0.5}], ids=str)
@pytest.mark.long
def test_temperatures_change_their_terms(method, variables, setting):
    changed, terms = (loss(m, variables)[1][1] for m in (built(**setting), method))
    name = next(iter(setting)).split("_")[0]
    other = {"instance": "cluster", "cluster": "instance"}[name]
    assert abs(changed[name] - terms[name]) > 1e-3 and changed[other] == terms[other]


@pytest.mark.long
def test_order_of_the_batch_does_not_matter(method, variables):
    order = np.random.default_rng(0).permutation(16)
    value, permuted = (loss(method, variables, b)[0] for b in (BATCH, {k: v[order] for k, v in BATCH.items()}))
    np.testing.assert_allclose(value, permuted, rtol=1e-5)


@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.long)])
def test_value_gradient_and_statistics_are_those_of_the_global_batch(method, variables, devices):
    def step(variables, batch):
        def f(params):
            return method.phases[0].objectives[0].loss({**variables, "params": params}, batch, KEY)

        (value, (changed, _)), grads = jax.value_and_grad(f, has_aux=True)(variables["params"])
        return value, grads, changed

    mesh = data_mesh(16, jax.devices()[:devices])
    shardings = (replicated(mesh), batch_sharding(mesh))
    one, many = jax.jit(step)(variables, BATCH), jax.jit(step, in_shardings=shardings)(variables, BATCH)
    np.testing.assert_allclose(one[0], many[0], rtol=1e-5)
    norm = float(optax.tree.norm(one[1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * norm), one[1], many[1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one[2], many[2])


@pytest.mark.long
def test_prediction_is_on_the_simplex_and_does_not_mix_rows(method, variables):
    p = np.asarray(jax.jit(method.predict)(variables, {"image": BATCH["image"]}))
    assert p.shape == (16, 5) and (p >= 0).all()
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(method.predict)(variables, {"image": BATCH["image"][4:8]}), p[4:8], rtol=1e-4)
    assert jax.jit(method.embed)(variables, {"image": BATCH["image"]}).shape == (16, 32)


@pytest.mark.long
def test_bfloat16_keeps_parameters_and_losses_in_float32(variables):
    method = built(dtype="bfloat16")
    half = jax.eval_shape(method.init, jax.random.key(0), BATCH)
    assert {str(x.dtype) for x in jax.tree.leaves(half)} == {"float32"}
    value = loss(method, variables)[0]
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, loss(built(), variables)[0], rtol=0.05)


def test_stl10_alternates_the_streams_with_one_optimiser():
    method = cc.build(SPEC._replace(steps_per_epoch={"train": 3, "unlabelled": 7}), **SMALL)
    assert [(p.stream, p.num_steps) for p in method.phases] == [("unlabelled", 7), ("train", 3)] * 2
    first, second = (p.objectives[0] for p in method.phases[:2])
    assert first.tx is second.tx and first.loss is not second.loss
    assert method.phases[0].objectives is method.phases[2].objectives, "one compiled step for each stream"


@pytest.mark.long
def test_the_unlabelled_stream_has_only_the_instance_loss(variables):
    method = cc.build(SPEC._replace(steps_per_epoch={"train": 3, "unlabelled": 7}), **SMALL)
    value, (_, terms) = jax.jit(method.phases[0].objectives[0].loss)(variables, BATCH, KEY)
    assert set(terms) == {"instance"} and value == terms["instance"]
    assert value == pytest.approx(float(loss(built(), variables)[1][1]["instance"]), rel=1e-5)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"backbone": "resnet19"}, "resnet18"),
        ({"stem": "smal"}, "small"),
        ({"dtype": "float64"}, "bfloat16"),
        ({"augment": {"strenght": 1.0}}, "strength"),
        ({"augment": {"kind": "digit"}}, "digits"),
        ({"optimizer": {"schedule": "cosin"}}, "cosine"),
        ({"optimizer": {"lr": 1.0}}, "learning_rate"),
    ],
    ids=lambda v: str(v),
)
def test_wrong_settings_suggest_the_nearest(settings, words):
    with pytest.raises(UserError, match=words):
        jax.eval_shape(cc.build(SPEC, **{**SMALL, **settings}).init, jax.random.key(0), BATCH)


@pytest.mark.long
def test_the_moving_average_of_the_weights_does_not_change_training(variables):
    decay = 0.9
    averaged = built(average_decay=decay)
    start = jax.jit(averaged.init)(jax.random.key(0), BATCH)
    jax.tree.map(np.testing.assert_array_equal, start["average"]["params"], start["params"])
    moved = {**start, "params": jax.tree.map(lambda x: x + 1.0, start["params"])}
    value, (changed, _) = loss(averaged, moved)
    # Two programs have different rounding errors.
    np.testing.assert_allclose(value, loss(built(), {k: moved[k] for k in ("params", "batch_stats")})[0], rtol=1e-6)
    # Steps 0 and 1 have the weights 1 - 1/10 and 1 - 2/11.
    np.testing.assert_allclose(_first(changed["average"]["params"]), _first(start["params"]) + 0.9, rtol=1e-5)
    _, (changed, _) = loss(averaged, {**moved, **changed})
    expected = _first(start["params"]) + 0.9 + (1 - 2 / 11) * 0.1
    np.testing.assert_allclose(_first(changed["average"]["params"]), expected, rtol=1e-5)
    last = jax.jit(built().predict)(moved, BATCH)
    assert not np.allclose(jax.jit(averaged.predict)(start | {"params": moved["params"]}, BATCH), last)


@pytest.mark.long
def test_ten_crops_are_averaged(variables):
    found = jax.jit(built(ten_crop=True).predict)(variables, BATCH)
    one = jax.jit(built().predict)
    crops = ten_crops(BATCH["image"], SMALL["image_size"])
    expected = np.mean([one(variables, {"image": crops[:, i]}) for i in range(10)], axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def _first(tree):
    return jax.tree.leaves(tree)[0]
