"""Tests the loop: order of steps, resumption, streams, scanning, devices, and the stop at a loss that is not finite."""

import json
import os
import signal

import jax
import numpy as np
import optax
import pytest

from clustering_jax.data.base import batch_indices
from clustering_jax.method import Objective, Phase
from clustering_jax.training import loop, seeds, update
from clustering_jax.training.checkpoint import Store, checksums
from clustering_jax.training.evaluate import make_infer
from clustering_jax.training.log import MetricsLog
from clustering_jax.training.signals import Diverged, Interrupted
from tests import toy


def run(directory, method, *, schedule=None, evaluate=None, streams=None, batch_size=8, seed_list=(0,)):
    directory.mkdir(exist_ok=True)
    streams = streams or {"train": toy.dataset()}
    features = streams["train"].features
    each = [toy.init(jax.random.key(seed), features) for seed in seed_list]
    store = Store(directory / "checkpoints")
    try:
        return loop.fit(
            method,
            streams,
            each[0] if len(seed_list) == 1 else jax.tree.map(lambda *x: np.stack(x), *each),
            seed_list=seed_list,
            batch_size=batch_size,
            schedule=schedule or loop.Schedule(log_every=2, checkpoint_every=4),
            store=store,
            open_log=lambda step, total: MetricsLog(directory / "metrics.jsonl", step, total, batch_size),
            meta={},
            infer=lambda function, variables: make_infer(function, batch_size)(variables, features),
            evaluate=evaluate or (lambda variables: {"acc": 0.5}),
        )[0]
    finally:
        store.close()


def lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def by_hand(method, data, steps, batch_size=8, seed=0):
    """The same training as a plain Python loop without jit, scan and mesh."""
    state = update.init_state(method, toy.init(jax.random.key(seed), data.features))
    phase = method.phases[0]
    for step in range(steps):
        index = batch_indices(seed, step, data.num_examples, batch_size)
        key = jax.random.fold_in(jax.random.key(seed), step // (data.num_examples // batch_size))
        batch = {"x": data.features["x"][index], "index": index}
        state, _ = update.train_step(phase, update.optimizers(method), state, batch, key)
    return state


def assert_close(a, b, rtol):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol), a, b)


@pytest.mark.parametrize(
    ("resident_bytes", "batch_size"),
    [
        pytest.param(1 << 30, 8, id="resident, 8 devices"),
        pytest.param(0, 5, id="host, 5 devices"),
        pytest.param(1 << 30, 5, id="resident, 5 devices", marks=pytest.mark.long),
        pytest.param(0, 8, id="host, 8 devices", marks=pytest.mark.long),
    ],
)
def test_equals_a_plain_loop(tmp_path, resident_bytes, batch_size):
    schedule = loop.Schedule(log_every=5, resident_bytes=resident_bytes)
    method = toy.method(12)
    state = run(tmp_path, method, schedule=schedule, batch_size=batch_size)
    assert_close(state, by_hand(method, toy.dataset(), 12, batch_size), 1e-5)
    assert int(state.step) == 12


def interrupt_at(step, monkeypatch):
    """Sends SIGTERM when the feed is asked for `step`, so that the loop sees it after that call."""
    original = loop.Feed.__call__

    def call(self, phase, at, count, targets, length):
        if interrupt_at.seen <= step < interrupt_at.seen + count:
            os.kill(os.getpid(), signal.SIGTERM)
        interrupt_at.seen += count
        return original(self, phase, at, count, targets, length)

    interrupt_at.seen = 0
    monkeypatch.setattr(loop.Feed, "__call__", call)


REFRESHED = {"steps": 6, "refresh": lambda targets: targets}
ENDED = {"steps": 6, "refresh": lambda targets: None}


@pytest.mark.parametrize(
    "options",
    [{}, {"two_phases": True}, {"two_streams": True}, REFRESHED, ENDED],
    ids=["one phase", "two phases", "two streams", "refreshed targets", "ended phase"],
)
@pytest.mark.parametrize("at", [0, 5, 9])
@pytest.mark.long
def test_sigterm_saves_and_the_resumed_run_ends_bitwise_equal(tmp_path, monkeypatch, options, at):
    streams = {"train": toy.dataset(), "other": toy.dataset(seed=1)}
    method = toy.method(**options)
    whole = run(tmp_path / "whole", method, streams=streams)
    with monkeypatch.context() as patch:
        interrupt_at(at, patch)
        with pytest.raises(Interrupted, match="is saved"):
            run(tmp_path / "cut", method, streams=streams)
    resumed = run(tmp_path / "cut", method, streams=streams)
    assert checksums(resumed) == checksums(whole)
    logged, expected = ([line["step"] for line in lines(tmp_path / name)] for name in ("cut", "whole"))
    assert len(set(logged)) == len(logged) and set(expected) <= set(logged)


def test_streams_alternate_and_share_one_optimiser(tmp_path):
    method = toy.method(two_streams=True)
    places = [loop.locate(method.phases, step) for step in range(20)]
    assert [p.phase.stream for p in places] == (["other"] * 2 + ["train"] * 3) * 4
    assert [p.stream_step for p in places if p.phase.stream == "train"] == list(range(12))
    assert [p.stream_step for p in places if p.phase.stream == "other"] == list(range(8))
    assert len(update.optimizers(method)) == 1
    state = run(tmp_path, method, streams={"train": toy.dataset(), "other": toy.dataset(seed=1)})
    assert int(state.opt_states[0][0].count) == 20


def test_objectives_take_turns_with_their_own_optimisers(tmp_path):
    first, second = Objective(toy.loss, optax.sgd(0.1)), Objective(toy.loss, optax.sgd(0.2))
    method = toy.method()._replace(phases=(Phase("both", 1, (first, second)),))
    state = run(tmp_path, method)
    once = by_hand(toy.method(tx=optax.sgd(0.1)), toy.dataset(), 1)
    batch = {"x": toy.dataset().features["x"], "index": np.arange(40)}
    index = batch_indices(0, 0, 40, 8)
    batch = {k: v[index] for k, v in batch.items()}
    key = jax.random.fold_in(jax.random.key(0), 0)
    grads = jax.grad(lambda p: toy.loss({**once.variables, "params": p}, batch, key)[0])(once.variables["params"])
    expected = once.variables["params"]["w"] - 0.2 * grads["w"]
    np.testing.assert_allclose(state.variables["params"]["w"], expected, rtol=1e-5)
    assert int(state.variables["seen"]["n"]) == 2


@pytest.mark.long
def test_targets_are_added_to_the_batches(tmp_path):
    plain = run(tmp_path / "a", toy.method(24))
    with_targets = run(tmp_path / "b", toy.method(12, two_phases=True))
    assert abs(np.asarray(plain.variables["params"]["w"] - with_targets.variables["params"]["w"])).max() > 1e-3
    assert {line["phase"] for line in lines(tmp_path / "b")} == {"one", "two"}


@pytest.mark.long
def test_targets_are_refreshed_on_time_from_the_present_ones(tmp_path):
    seen = []
    run(tmp_path, toy.method(6, refresh=lambda targets: seen.append(targets["target"].copy()) or targets))
    assert len(seen) == 2  # steps 4 and 8 of a phase of 9
    np.testing.assert_array_equal(seen[0] + 1, seen[1])


@pytest.mark.long
def test_a_phase_ends_without_targets(tmp_path):
    method = toy.method(6, refresh=lambda targets: None)
    last = method.phases[0]._replace(name="last")
    state = run(tmp_path, method._replace(phases=(*method.phases, last)))
    assert int(state.variables["seen"]["n"]) == 6 + 4 + 6  # four of nine steps
    logged = [(line["step"], line["phase"]) for line in lines(tmp_path) if "loss" in line]
    assert [step for step, phase in logged if phase == "two"] == [8, 10] and logged[-1] == (21, "last")
    assert all(line["images_per_second"] > 0 for line in lines(tmp_path) if "loss" in line)


def test_a_loss_that_is_not_finite_stops_before_a_checkpoint(tmp_path):
    with pytest.raises(Diverged, match="not finite at step"):
        run(tmp_path, toy.method(12, optax.sgd(1e30)))
    store = Store(tmp_path / "checkpoints")
    abstract = jax.eval_shape(
        lambda: update.init_state(toy.method(), toy.init(jax.random.key(0), {"x": np.ones((1, 5))}))
    )
    assert store.restore(abstract) is None
    store.close()


def test_evaluation_comes_before_the_checkpoint_of_its_step(tmp_path):
    seen = []
    schedule = loop.Schedule(log_every=3, evaluate_every=4, checkpoint_every=4)
    run(
        tmp_path,
        toy.method(12),
        schedule=schedule,
        evaluate=lambda v: seen.append(int(v["seen"]["n"])) or {"acc": 1.0},
    )
    assert seen == [4, 8, 12]
    assert [line["step"] for line in lines(tmp_path) if "loss" in line] == [3, 4, 6, 8, 9, 12]
    assert [line["step"] for line in lines(tmp_path) if "eval/acc" in line] == [4, 8, 12]


def test_scan_and_single_steps_agree(tmp_path):
    scanned = run(tmp_path / "a", toy.method(20), schedule=loop.Schedule(log_every=20))
    stepped = run(tmp_path / "b", toy.method(20), schedule=loop.Schedule(log_every=1))
    assert_close(scanned, stepped, 1e-6)


@pytest.mark.parametrize("step, expected", [(0, 6), (5, 6), (6, 10), (10, 12), (12, 16), (31, 32)])
def test_next_stop_depends_only_on_the_step(step, expected):
    schedule = loop.Schedule(log_every=6, evaluate_every=10, checkpoint_every=0)
    assert loop.next_stop(step, 1000, 16, schedule) == expected


@pytest.mark.long
def test_a_full_batch_phase_has_every_row_once_in_order_on_any_devices(tmp_path, monkeypatch):
    seen, original = [], loop.Feed.__call__

    def call(self, phase, *rest):
        found = original(self, phase, *rest)
        seen.extend(found[2]["index"][: found[4]] if phase.whole else [])
        return found

    monkeypatch.setattr(loop.Feed, "__call__", call)
    streams = {"train": toy.dataset(n=37)}  # not a multiple of eight devices
    method = toy.method(4, two_phases=True, whole=True)
    state = run(tmp_path, method, streams=streams)
    assert int(state.step) == 8 and len(seen) == 4 and all(np.array_equal(rows, np.arange(37)) for rows in seen)


def test_one_program_separates_the_seeds(caplog):
    trees = {"a": np.arange(6).reshape(3, 2), "b": np.arange(15.0).reshape(3, 5)}
    keys = seeds.keys_of([5, 6, 7])
    with jax.log_compiles():
        each = list(seeds.each_seed(keys, trees, 3))
    assert caplog.text.count("Compiling") == 1
    for i, (key, found) in enumerate(each):
        assert key == keys[i]
        jax.tree.map(lambda x, whole, i=i: np.testing.assert_array_equal(x, whole[i]), found, trees)


@pytest.mark.parametrize("options", [{}, {"two_phases": True}, {"two_phases": True, "whole": True}], ids=str)
@pytest.mark.long
def test_seeds_side_by_side_equal_the_runs_of_each_seed(tmp_path, options):
    method = toy.method(8, **options)
    together = run(tmp_path / "all", method, seed_list=(3, 4, 9))
    for i, seed in enumerate((3, 4, 9)):
        alone = run(tmp_path / str(seed), method, seed_list=(seed,))
        assert_close(seeds.take_seed(together, i), alone, 1e-5)


@pytest.mark.parametrize("at", [0, 9, 13])
@pytest.mark.long
def test_seeds_side_by_side_resume_bitwise(tmp_path, monkeypatch, at):
    method = toy.method(two_phases=True, whole=True)
    whole = run(tmp_path / "whole", method, seed_list=(0, 1))
    with monkeypatch.context() as patch:
        interrupt_at(at, patch)
        with pytest.raises(Interrupted, match="is saved"):
            run(tmp_path / "cut", method, seed_list=(0, 1))
    assert checksums(run(tmp_path / "cut", method, seed_list=(0, 1))) == checksums(whole)
