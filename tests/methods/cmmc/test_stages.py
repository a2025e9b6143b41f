"""Compares the three stages of CMMC with a plain loop, step by step; tests several seeds side by side."""

import json
from itertools import combinations, permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from scipy.optimize import linear_sum_assignment

from clustering_jax.data.base import batch_indices
from clustering_jax.training import seeds as side_by_side
from tests.methods import views_toy as toy

K, STEPS, RATE = toy.CLUSTERS, 5, 3e-4
# A seed with different assignments of the rows in every view, so that each matching is unique (see `matched`).
SEED = 12


def decided(method):
    """Returns variables whose initial assignments differ between rows."""

    def init(key, batch):
        flat = flatten_dict(method.init(key, batch))
        scales = {("params", "label_head", "linear_0", "kernel"): 10, ("params", "label_head", "linear_0", "bias"): 0}
        return unflatten_dict({p: scales.get(p, 1) * x for p, x in flat.items()})

    return method._replace(init=init)


# --- The plain loop in float64, without modules, scan and mesh


def layers(params, x):
    for i, name in enumerate(sorted(params)):
        x = jnp.maximum(x, 0) if i else x
        x = x @ params[name]["kernel"] + params[name]["bias"]
    return x


def forward(params, batch):
    views = [k for k in sorted(batch) if k.startswith("view")]
    z = [layers(params[f"encoder_{v}"], batch[v]) for v in views]
    x = [layers(params[f"decoder_{v}"], each) for v, each in zip(views, z, strict=True)]
    h = [layers(params["feature_head"], each) for each in z]
    h = [each / jnp.sqrt((each**2).sum(1, keepdims=True)) for each in h]
    q = [jnp.exp(layers(params["label_head"], each)) for each in z]
    return h, [each / each.sum(1, keepdims=True) for each in q], x


def contrast(a, b, temperature):
    z, n = jnp.concatenate([a, b]), len(a)
    scores = jnp.exp(z @ z.T / temperature)
    others = (scores * (1 - jnp.eye(2 * n))).sum(1)
    return -jnp.log(jnp.roll(jnp.diagonal(jnp.roll(scores, n, axis=0)), n) / others).mean()


def imbalance(q):
    mean = q.mean(0)
    return np.log(K) + (mean * jnp.log(mean)).sum()


def reconstruction(params, batch, **_):
    _, _, x = forward(params, batch)
    return sum(((batch[f"view{v}"] - each) ** 2).mean() for v, each in enumerate(x))


def contrastive(params, batch, per_pair, **_):
    h, q, _ = forward(params, batch)
    total, units = reconstruction(params, batch), [each / jnp.sqrt((each**2).sum(0)) for each in q]
    for v, w in combinations(range(len(h)), 2):
        total += contrast(h[v], h[w], 0.5) + contrast(units[v].T, units[w].T, 1.0)
        total += per_pair * (imbalance(q[v]) + imbalance(q[w]))
    return total + (not per_pair) * sum(imbalance(each) for each in q)


def matching(params, batch, double_softmax, targets, **_):
    total = 0.0
    for q, y in zip(forward(params, batch)[1], targets, strict=True):
        p = jnp.exp(q) / jnp.exp(q).sum(1, keepdims=True) if double_softmax else q
        total -= jnp.log(p[jnp.arange(len(y)), y]).mean()
    return total


def matched(q, pseudo):
    """Renames the pseudo-labels to agree best with q. The best renaming must be unique."""
    table = np.zeros((K, K))
    np.add.at(table, (pseudo, np.asarray(q).argmax(1)), 1)
    worth = sorted(sum(table[i, j] for i, j in enumerate(names)) for names in permutations(range(K)))
    assert worth[-1] > worth[-2]
    return linear_sum_assignment(-table)[1][pseudo]


def adam(params, moments, grads, count):
    first, second = (
        jax.tree.map(lambda m, g, d=d, p=p: d * m + (1 - d) * g**p, m, grads)
        for d, p, m in zip((0.9, 0.999), (1, 2), moments, strict=True)
    )

    def step(x, m, v):
        return x - RATE * (m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.999**count)) + 1e-8)

    return jax.tree.map(step, params, first, second), (first, second)


def plain_run(params, data, pseudo, **switches):
    """Returns the losses of the 15 steps, and the parameters after them."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    moments, losses = (jax.tree.map(np.zeros_like, params),) * 2, []
    for loss in (reconstruction, contrastive, matching):
        grad = jax.jit(jax.value_and_grad(lambda p, batch, y, loss=loss: loss(p, batch, targets=y, **switches)))
        for _ in range(STEPS):
            rows = batch_indices(SEED, len(losses), 40, toy.BATCH) if loss is not matching else np.arange(40)
            batch, targets = {k: v[rows].astype(np.float64) for k, v in data.items()}, 0
            if loss is matching:
                targets = [matched(q, pseudo[:, v]) for v, q in enumerate(forward(params, batch)[1])]
            value, grads = jax.device_get(grad(params, batch, targets))
            losses.append(float(value))
            params, moments = adam(params, moments, grads, len(losses))
    return losses, params


@pytest.mark.parametrize(
    "views, double_softmax, per_pair",
    [
        (2, True, True),
        pytest.param(3, False, True, marks=pytest.mark.slow),
        pytest.param(2, False, False, marks=pytest.mark.slow),
        pytest.param(3, True, False, marks=pytest.mark.slow),
    ],
)
@pytest.mark.long
def test_five_steps_of_each_stage_equal_the_plain_loop(tmp_path, views, double_softmax, per_pair):
    # The layers are wide, so that every row has an active hidden unit. Otherwise its features would be rounding
    # errors, scaled to norm 1.
    settings = {"double_softmax": double_softmax, "entropy_per_pair": per_pair, "hidden": (32, 32), "latent_dim": 16}
    method, data = decided(toy.build(**settings, optimizer={"learning_rate": RATE})), toy.dataset(views=views)
    state, targets = toy.run(tmp_path, method, data, seeds=(SEED,))
    start = side_by_side.init_variables(method, (SEED,), {k: v[:2] for k, v in data.features.items()})
    switches = {"double_softmax": double_softmax, "per_pair": per_pair}
    with jax.enable_x64(True):
        losses, params = plain_run(start["params"], data.features, targets["pseudo"], **switches)
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in logged] == ["reconstruct"] * 5 + ["contrast"] * 5 + ["match"] * 5
    np.testing.assert_allclose([line["loss"] for line in logged], losses, rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=RATE / 30), state.variables["params"], params)


@pytest.mark.slow
def test_seeds_side_by_side_equal_the_runs_of_each_seed(tmp_path):
    method, data = decided(toy.build()), toy.dataset(missing=True)
    together, targets = toy.run(tmp_path / "all", method, data, seeds=(3, 4, 9))
    for i, seed in enumerate((3, 4, 9)):
        alone, own = toy.run(tmp_path / str(seed), method, data, seeds=(seed,))
        np.testing.assert_array_equal(targets["pseudo"][i], own["pseudo"])
        one, other = side_by_side.take_seed(together.variables, i), alone.variables
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one, other)
