"""Tests DMIM runs on a number of pairs that batch and devices do not divide, and the memory of a large step."""

import json

import jax
import numpy as np
import pytest

from clustering_jax import run
from clustering_jax.losses import balanced_labels
from clustering_jax.methods import from_config
from clustering_jax.parallel import data_mesh
from clustering_jax.settings import dmim
from clustering_jax.training.update import init_state, make_update, optimizers

N, K = 41, 3
DATA = {"source": "planted", "n": N, "shared": 1.0, "private": 0.5, "num_clusters": K, "width": 6}


@pytest.mark.parametrize("full_batch, steps", [(True, 4), (False, 8)])
@pytest.mark.long
def test_a_prime_number_of_rows(tmp_path, full_batch, steps):
    settings = {"num_clusters": K, "batch_size": 16, "epochs": 4, "data": DATA}
    model = {"full_batch": full_batch, "refresh_epochs": 2}
    config = dmim(**settings, model=model, run={"evaluate_every": 2, "log_every": 1}).to_dict()
    result = run.train(config, tmp_path / "run", reported=False)
    assert result["protocol"]["scored_on"].endswith(f"{N} examples")
    assert len((tmp_path / "run" / "assignments.csv").read_text().splitlines()) == N + 1
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, steps + 1))
    # An epoch is one step on all rows for any batch size, or the batches of all rows.
    assert [line["step"] for line in lines if "eval/acc" in line] == [steps // 2, steps]


def taken(lowered):
    """The largest number of bytes that a compiled program holds, including its arguments and results."""
    found = lowered.compile().memory_analysis()
    return found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes


@pytest.mark.long
def test_a_step_on_all_of_nus_wide_stays_within_2_gb():
    rows, width, clusters = 20_000, 100, 8
    method = from_config(dmim(num_clusters=clusters, batch_size=0, epochs=1).to_dict(), {"train": 1})
    views = {f"view{v}": jax.ShapeDtypeStruct((rows, width), np.float32) for v in range(2)}
    state = jax.eval_shape(lambda key, batch: init_state(method, method.init(key, batch)), jax.random.key(0), views)
    index = {"index": jax.ShapeDtypeStruct((16, rows), np.int32)}
    epochs, count = jax.ShapeDtypeStruct((16,), np.int32), jax.ShapeDtypeStruct((), np.int32)
    update = make_update(method.phases[0], optimizers(method), data_mesh(1), True)
    pseudo = {"pseudo": jax.ShapeDtypeStruct((rows, 1), np.int32)}
    key = jax.eval_shape(lambda: jax.random.key(0))
    assert taken(update.lower(state, views, pseudo, index, epochs, count, key)) < 2e9
    probabilities = jax.ShapeDtypeStruct((rows, clusters), np.float32)
    assert taken(jax.jit(balanced_labels).lower(probabilities)) < 0.2e9
