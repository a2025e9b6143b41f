"""`model.prior`: the default is the published program, given shares enter the balance term, learnt shares follow."""

from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from clustering_jax.errors import UserError
from clustering_jax.losses import balanced_labels, cluster_contrast, imbalance, matching
from clustering_jax.losses.checks import checked_batch, rescaled
from clustering_jax.losses.prior import divergence_from_prior
from clustering_jax.method import Spec
from clustering_jax.methods import METHODS, temi
from clustering_jax.methods.cc.method import cluster_loss
from clustering_jax.methods.prior import DECAY, SMOOTHING, UNIFORM, prior_of
from clustering_jax.methods.turtle import outer_terms

N, D, K = 24, 6, 3
SHARES = np.array([0.6, 0.3, 0.1])
TEXT = "6,3,1"
KEY = jax.random.key(3)
CC = {"backbone": "resnet18", "width": 4, "image_size": 8}
SMALL = {
    "cmmc": {"hidden": (8,), "latent_dim": 6, "feature_dim": 4},
    "dmim": {"over_clusters": 2},
    "dxmc": {"hidden": 8, "instance_dim": 4},
    "temi": {"heads": 2, "hidden": 8, "width": 6},
    "turtle": {"num_steps": 4},
}
NAMES = {
    "cmmc": ("view0", "view1"),
    "dmim": ("view0", "view1"),
    "dxmc": ("image", "text", "image_partner", "text_partner"),
    "temi": ("image", "image_partner"),
    "turtle": ("view0", "view1"),
}


def soft(seed, *shape):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1]).astype(np.float32)


def batch_of(name):
    rng = np.random.default_rng(0)
    if name == "cc":
        return {"image": rng.integers(0, 256, (N, 8, 8, 1)).astype(np.uint8), "index": np.arange(N, dtype=np.int32)}
    rows = {view: rng.normal(size=(N, D)).astype(np.float32) for view in NAMES[name]}
    rows = {view: x / np.linalg.norm(x, axis=1, keepdims=True) for view, x in rows.items()}
    return {**rows, "index": np.arange(N, dtype=np.int32), "pseudo": np.full((N, 2 if name == "cmmc" else 1), -1)}


def build(name, **settings):
    groups = {"augment": {"kind": "digits"}} if name == "cc" else {}
    return METHODS[name](Spec(K, N, 2, {"train": 1}), **groups, **{**SMALL.get(name, CC), **settings})


def balanced_phase(method):
    """The phase with the balance term: CMMC begins with another one."""
    return next(phase for phase in method.phases if phase.name != "reconstruct")


@cache
def step(name, prior):
    """Variables, and the value, collections, terms and gradients of a step."""
    method, batch = build(name, prior=prior), batch_of(name)
    variables, loss = method.init(KEY, batch), balanced_phase(method).objectives[0].loss

    def value(params):
        return loss({**variables, "params": params}, batch, KEY)

    (found, (changed, terms)), gradients = jax.jit(jax.value_and_grad(value, has_aux=True))(variables["params"])
    return SimpleNamespace(variables=variables, value=found, changed=changed, terms=terms, gradients=gradients)


# --- The default is the published program: the same operations give the same bits.


def published_imbalance(p):
    (p,) = checked_batch("imbalance", None, p)
    sums = jnp.sum(p, axis=0)
    sums, nonzero = rescaled(sums, jnp.sum(sums))
    mean = sums / jnp.where(nonzero, jnp.sum(sums), 1)
    return jnp.sum(mean * jnp.log(jnp.where(mean > 0, mean * p.shape[1], 1)))


def published_cluster_loss(p, q):
    contrast = cluster_contrast(p, q, temperature=1.0)
    return contrast + (published_imbalance(p) + published_imbalance(q))


def published_information(log_s, log_t, mean):
    log_mean = jnp.log(jnp.maximum(mean, jnp.finfo(mean.dtype).tiny))
    return jax.nn.logsumexp(0.6 * (log_s + log_t) - log_mean[:, None], axis=2)


def published_factors(logits):
    n, k = logits.shape

    def step(carry):
        iteration, change, rows, _ = carry
        clusters = -np.log(k) - jax.nn.logsumexp(logits + rows[:, None], axis=0)
        new = -np.log(n) - jax.nn.logsumexp(logits + clusters, axis=1)
        change = jnp.where(iteration % 10 == 0, jnp.sum(jnp.abs(jnp.exp(rows - new) - 1)), change)
        return iteration + 1, change, new, clusters

    start = (jnp.int32(0), jnp.full_like(logits[0, 0], jnp.inf), jnp.full_like(logits[:, 0], -np.log(n)))
    end = lax.while_loop(lambda x: (x[1] > 0.01) & (x[0] < 75), step, (*start, jnp.zeros_like(logits[0])))
    return end[3]


def published_divergence(mean):
    return jnp.sum(mean * (jnp.log(jnp.where(mean > 0, mean, 1.0)) - np.full(K, -np.log(K), np.float32)))


P, Q, HEADS = soft(0, N, K), soft(1, N, K), np.log(soft(2, 2, N, K))
SAME = {
    "imbalance": (imbalance, published_imbalance, (P,)),
    "cc": (lambda p, q: cluster_loss(p, q, 1.0)[0], published_cluster_loss, (P, Q)),
    "temi": (
        lambda *x: temi.pointwise_information(*x, 0.6),
        published_information,
        (HEADS, HEADS[::-1].copy(), soft(4, 2, K)),
    ),
    "dmim": (lambda p: matching.cluster_factors(p, 0.01, 75), published_factors, (np.log(P),)),
    "turtle": (
        lambda mean: divergence_from_prior(mean, np.full(K, -np.log(K), np.float32)),
        published_divergence,
        (P[0],),
    ),
}


def program(function, inputs):
    """The operations that give the result, as XLA reads them."""
    return jax.jit(function).lower(*inputs).as_text()


@pytest.mark.parametrize("name", SAME)
def test_the_default_is_the_published_program(name):
    ours, published, inputs = SAME[name]
    one, two = (program(lambda *x, f=function: f(*x), inputs) for function in (ours, published))
    assert one == two
    np.testing.assert_array_equal(jax.jit(ours)(*inputs), jax.jit(published)(*inputs))


@pytest.mark.parametrize("name", ["cc", *SMALL])
def test_only_learnt_shares_add_variables(name):
    batch = batch_of(name)
    trees = {p: jax.eval_shape(build(name, prior=p).init, KEY, batch) for p in ("uniform", TEXT, "learnt")}
    plain = jax.eval_shape(build(name).init, KEY, batch)
    assert plain == trees["uniform"] == trees[TEXT] and set(trees["learnt"]) == {*plain, "prior"}
    assert trees["learnt"]["prior"]["mean"].shape == ((2, K) if name == "temi" else (K,))


# --- Given shares


def divergence_loop(p, prior):
    mean = p.sum(0) / p.sum()
    return sum(m * np.log(m / q) for m, q in zip(mean, prior, strict=True) if m > 0)


@pytest.mark.parametrize("case", ["dense", "an empty cluster", "rows of another sum"])
def test_the_divergence_is_that_of_a_loop(case):
    p = soft(5, N, K).astype(np.float64)
    if case == "an empty cluster":
        p[:, 1] = 0
    p = p / p.sum(1, keepdims=True) * (7 if case == "rows of another sum" else 1)
    value, gradient = jax.value_and_grad(lambda x: imbalance(x, log_prior=np.log(SHARES)))(p.astype(np.float32))
    assert value == pytest.approx(divergence_loop(p, SHARES), rel=1e-5) and np.isfinite(gradient).all()


def test_the_divergence_is_0_at_the_prior_and_is_the_imbalance_for_equal_shares():
    rows = np.tile(SHARES, (N, 1)).astype(np.float32)
    assert imbalance(rows, log_prior=np.log(SHARES)) == pytest.approx(0, abs=1e-6)
    equal = imbalance(P, log_prior=np.full(K, -np.log(K)))
    assert equal == pytest.approx(float(imbalance(P)), abs=1e-6)
    with pytest.raises(ValueError, match=r"needs log_prior \[k\]"):
        imbalance(P, log_prior=np.zeros(K + 1))


def test_certain_pairs_have_the_negative_divergence_as_their_information():
    """TEMI's term: each row is in one cluster, and the mean is that of the rows."""
    labels = np.repeat(np.arange(K), [12, 8, 4])
    log_p = np.log(np.maximum(np.eye(K)[labels], 1e-30))[None].astype(np.float32)
    mean = np.exp(log_p).mean(1)
    for beta in (0.6, 1.0):
        plain = temi.pointwise_information(log_p, log_p, mean, beta).mean()
        assert plain == pytest.approx(np.log(K) - divergence_loop(np.exp(log_p[0]), np.full(K, 1 / K)), abs=1e-5)
        shares = temi.pointwise_information(log_p, log_p, mean, beta, np.log(SHARES).astype(np.float32)).mean()
        assert shares == pytest.approx(-divergence_loop(np.exp(log_p[0]), SHARES), abs=1e-5)


def test_balanced_labels_have_the_given_shares():
    log_prior = np.log(SHARES).astype(np.float32)
    sizes = np.bincount(balanced_labels(soft(6, 3000, K), log_prior=log_prior), minlength=K)
    np.testing.assert_allclose(sizes / 3000, SHARES, atol=0.03)


def test_the_labels_of_dmim_have_the_given_shares():
    for prior, low, high in ((TEXT, 0.5, 0.75), ("uniform", 0.2, 0.46)):
        method, batch = build("dmim", prior=prior), batch_of("dmim")
        found = balanced_phase(method).targets(
            KEY, method.init(KEY, batch), lambda f, v, batch=batch: np.asarray(f(v, batch))
        )
        assert low < np.mean(found["pseudo"] == 0) < high, prior


@pytest.mark.parametrize("name, term", [("cmmc", "imbalance"), ("dxmc", "imbalance"), ("turtle", "prior")])
@pytest.mark.long
def test_shares_change_the_balance_term_of_a_step_alone(name, term):
    plain, given = step(name, "uniform").terms, step(name, TEXT).terms
    assert abs(float(plain[term] - given[term])) > 0.01
    for other in set(plain) - {term}:
        assert plain[other] == pytest.approx(float(given[other]), rel=1e-5), other


# --- Equal shares and learnt shares


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("prior", ["1,1,1", "learnt"])
@pytest.mark.long
def test_equal_shares_and_the_first_step_of_learnt_ones_have_the_published_gradient(name, prior):
    plain, other = step(name, "uniform"), step(name, prior)
    for a, b in zip(*map(jax.tree.leaves, (plain.gradients, other.gradients)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * max(1, abs(np.asarray(a)).max()))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.long
def test_a_step_moves_learnt_shares_towards_the_mean_assignment(name):
    found = step(name, "learnt")
    before, after = (np.asarray(x["prior"]["mean"]) for x in (found.variables, found.changed))
    np.testing.assert_allclose(after.sum(-1), 1, rtol=1e-5)
    mean = (after - DECAY * before) / (1 - DECAY)
    assert (mean > -1e-3).all() and abs(after - before).max() > 1e-6
    assert "prior" not in step(name, "uniform").changed


def test_learnt_shares_are_smoothed_and_reach_the_mean():
    prior, variables = prior_of("learnt", K), prior_of("learnt", K).initial(K)
    np.testing.assert_allclose(prior.log(variables), -np.log(K), rtol=1e-6)
    mean = np.array([0.7, 0.3, 0.0], np.float32)
    variables = jax.lax.fori_loop(0, 1500, lambda _, variables: prior.updated(variables, mean), variables)
    expected = (1 - SMOOTHING) * np.array([0.7, 0.3, 0]) + SMOOTHING / K
    np.testing.assert_allclose(np.exp(prior.log(variables)), expected, atol=1e-4)


@pytest.mark.parametrize(
    "setting, none, words",
    [
        ("unifrom", False, "choose uniform, learnt, or 3 numbers above 0"),
        ("none", False, "choose uniform, learnt, or"),
        ("nune", True, "choose uniform, learnt, none, or"),
        ("1,2", False, "3 numbers"),
        ("1,2,0", False, "3 numbers above 0"),
        ((1, 2, float("inf")), False, "3 numbers"),
    ],
)
def test_other_priors_are_refused_in_one_line(setting, none, words):
    with pytest.raises(UserError, match=r"model\.prior") as error:
        prior_of(setting, K, none=none)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["cc", *SMALL])
def test_every_method_checks_its_prior(name):
    with pytest.raises(UserError, match=r"model\.prior is '1,2'"):
        build(name, prior="1,2")


def test_shares_are_text_or_numbers():
    assert prior_of("uniform", K) == UNIFORM and prior_of("none", K, none=True).log({}) is None
    for setting in (TEXT, [6, 3, 1], (0.6, 0.3, 0.1)):
        np.testing.assert_allclose(np.exp(prior_of(setting, K).log({})), SHARES, rtol=1e-6)


def test_turtle_without_a_prior_has_no_divergence():
    layers = {"image": {"kernel": np.eye(D, K, dtype=np.float32), "bias": np.zeros(K, np.float32)}}
    task = {"image": {**layers["image"], "scale": np.ones(K, np.float32)}}
    space = SimpleNamespace(rows=soft(7, N, D), scale=1.0, weight=np.full(N, 1 / N, np.float32))
    assert outer_terms(task, layers, {"image": space}, None)[1] == 0
