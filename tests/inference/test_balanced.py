"""Balanced assignments have exact sizes and are near the best assignment of these sizes, which SciPy finds."""

import csv

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from clustering_jax import run
from clustering_jax.errors import UserError
from clustering_jax.inference.balanced import balanced, log_shares, sizes
from clustering_jax.settings import turtle

K = 4
SHARES = np.array([0.55, 0.25, 0.15, 0.05])


def soft(n, seed=0, sharp=3.0):
    z = sharp * np.random.default_rng(seed).normal(size=(n, K)) + np.array([2.0, 0, 0, 0])
    p = np.exp(z - z.max(1, keepdims=True))
    return (p / p.sum(1, keepdims=True)).astype(np.float32)


def best_total(p, wanted):
    """The largest sum of log-probabilities of an assignment with these sizes, by the Hungarian algorithm."""
    cost = -np.log(np.repeat(p, wanted, axis=1))
    return -cost[linear_sum_assignment(cost)].sum()


@pytest.mark.parametrize("shares", [None, SHARES], ids=["equal", "given"])
@pytest.mark.parametrize("n", [7, 60, 203])
@pytest.mark.parametrize("sharp", [0.5, 3.0, 30.0])
def test_sizes_are_exact_and_the_assignment_is_near_the_best_one(shares, n, sharp):
    p, log_prior = soft(n, n, sharp), None if shares is None else np.log(shares)
    wanted, found = sizes(n, K, log_prior), balanced(p, log_prior)
    assert wanted.sum() == n and abs(wanted - n * (SHARES if shares is not None else 1 / K)).max() < 1
    assert (np.bincount(found.argmax(1), minlength=K) == wanted).all() and found.dtype == p.dtype
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    total = np.log(np.maximum(p, 1e-38))[np.arange(n), found.argmax(1)].sum()
    best = best_total(np.maximum(p, 1e-38), wanted)
    assert best - 0.005 * abs(best) < total <= best + 1e-3


def test_rows_that_are_balanced_already_keep_their_clusters():
    labels = np.arange(40) % K
    p = (0.04 + 0.84 * np.eye(K))[labels].astype(np.float32)
    np.testing.assert_allclose(balanced(p), p, atol=1e-3)


def test_one_cluster_of_everything_and_equal_rows_are_divided():
    for p in (np.eye(K, dtype=np.float32)[np.zeros(20, int)], np.full((20, K), 1 / K, np.float32)):
        assert (np.bincount(balanced(p).argmax(1), minlength=K) == 5).all()


@pytest.mark.long
@pytest.mark.parametrize("prior, expected", [("uniform", [6, 6, 6, 6]), ("11,5,3,1", [1, 4, 6, 13])])
def test_a_run_writes_and_scores_balanced_clusters(tmp_path, prior, expected):
    config = turtle("smoke", num_clusters=K, balanced=True, model={"prior": prior}).to_dict()
    config["data"]["n"] = 24
    result = run.train(config, tmp_path, quiet=True, reported=False)
    with open(tmp_path / "assignments.csv") as file:
        rows = list(csv.DictReader(file))
    assert sorted(np.bincount([int(row["cluster"]) for row in rows], minlength=K)) == expected
    assert result["scores"]["occupied"] == K


def test_only_sizes_that_are_known_can_be_strict():
    config = {"num_clusters": K, "model": {}}
    assert log_shares(config) is None and log_shares({**config, "model": {"prior": "none"}}) is None
    np.testing.assert_allclose(np.exp(log_shares({**config, "model": {"prior": "11,5,3,1"}})), SHARES, rtol=1e-6)
    with pytest.raises(UserError, match="balanced=True needs sizes"):
        log_shares({**config, "model": {"prior": "learnt"}})
