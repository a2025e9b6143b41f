"""Streamed sets give the rows, batches and runs of sets in memory; tests the two-level shuffle and read errors."""

import json
import os
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from clustering_jax import data, run
from clustering_jax.data.base import Blocks, Dataset, batch_indices, epoch_permutation
from clustering_jax.data.images import streaming as lazy
from clustering_jax.data.images.streaming import LazyArray, read_ahead
from clustering_jax.errors import UserError
from clustering_jax.method import Phase
from clustering_jax.parallel import data_mesh
from clustering_jax.settings import cc
from clustering_jax.training import loop
from clustering_jax.training.batches import Feed, is_resident
from clustering_jax.training.checkpoint import checksums
from clustering_jax.training.evaluate import QUEUED, concatenate, make_infer
from clustering_jax.training.signals import Interrupted
from tests import toy
from tests.data.images.test_tfds import pixels, write_set
from tests.paths import ROOT
from tests.training import test_distributed as distributed
from tests.training.test_loop import interrupt_at
from tests.training.test_loop import run as train_toy

N = 50


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """Two class folders with pictures of many sizes and a text file, and a TFDS set "tiny" with two splits."""
    parent = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)
    for i in range(N):
        (parent / "photos" / f"c{i % 2}").mkdir(parents=True, exist_ok=True)
        shape = (*rng.integers(6, 20, 2), 3)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(parent / "photos" / f"c{i % 2}" / f"{i}.jpg")
    (parent / "photos" / "notes.txt").write_text("x")
    write_set(parent, {"train": (pixels(0, N - 9), np.arange(N - 9) % 9), "test": (pixels(1, 9), range(9))})
    return parent


def both(parent, source, **options):
    """Returns the set in memory and the streamed set."""
    sets = {
        "folder": {"path": parent / "photos", "size": 8, "labels_from_folders": True},
        "tfds": {"name": "tiny", "splits": "train+test", "tfds_dir": str(parent)},
    }
    return [data.load(source, **{**sets[source], **options}, streaming=streaming) for streaming in (False, True)]


def feed_of(dataset, seed=3, batch_size=8):
    return Feed({"train": dataset}, seed_list=(seed,), batch_size=batch_size, mesh=data_mesh(batch_size), limit=0)


PHASE = Phase("one", 100, ())
CASES = [("folder", {}), ("folder", {"on_error": "skip"}), ("folder", {"channels": 1})]
CASES += [("folder", {"shuffle_block": 4, "shuffle_window": 2}), ("tfds", {}), ("tfds", {"size": 7})]
CASES += [
    ("tfds", {"splits": "test+train[3:20]", "shuffle_block": 3, "shuffle_window": 2}),
    ("tfds", {"label_key": ""}),
]


@pytest.mark.parametrize("source, options", CASES, ids=str)
def test_streamed_rows_equal_those_in_memory(parent, source, options):
    memory, streamed = both(parent, source, **options)
    images, lazy_images = memory.features["image"], streamed.features["image"]
    assert isinstance(lazy_images, LazyArray) and not is_resident({"train": streamed}, 1 << 40)
    assert (lazy_images.shape, lazy_images.dtype, lazy_images.ndim) == (images.shape, images.dtype, 4)
    for index in (slice(2), slice(None), slice(3, 9, 2), np.array([7, 0, 7, 5]), 6):
        np.testing.assert_array_equal(lazy_images[index], images[index])
    assert [getattr(memory, name) for name in ("ids", "name", "split", "notes", "blocks")] == [
        getattr(streamed, name) for name in ("ids", "name", "split", "notes", "blocks")
    ]
    np.testing.assert_array_equal(memory.labels, streamed.labels)
    feeds = [feed_of(memory), feed_of(streamed)]
    # More than two epochs, then a jump back and a jump ahead, as in a resumed run.
    for step in [*range(14), 2, 3, 30]:
        ours, theirs = (feed(PHASE, step, 1, {}, 1) for feed in feeds)
        np.testing.assert_array_equal(ours[0]["image"], theirs[0]["image"])
        np.testing.assert_array_equal(ours[2]["index"], theirs[2]["index"])


@pytest.mark.parametrize("source", ["folder", "tfds"])
@pytest.mark.parametrize("batch_size", [8, 5, 64])
def test_streamed_inference_equals_that_in_memory(parent, source, batch_size):
    def function(variables, batch):
        return batch["image"].astype("float32").sum((1, 2, 3)) + variables

    found = [make_infer(function, batch_size)(np.float32(1), d.features) for d in both(parent, source)]
    assert len(found[0]) == N
    np.testing.assert_array_equal(*found)


def counting(n=4096, shape=(2, 2, 1)):
    """Rows whose values are their row numbers (modulo 256), and the numbers of the rows that were read, unordered."""
    seen = []

    def read(rows):
        seen.extend(rows.tolist())
        return [np.full(shape, row % 256, np.uint8) for row in rows]

    return LazyArray((n, *shape), read), seen


def settled(seen, expected):
    """The number of rows that the threads read, after enough time to read the expected number and more."""
    until = time.monotonic() + 60
    while len(seen) < expected and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    return len(seen)


@pytest.mark.parametrize("batch_size", [4, 100])
def test_only_the_next_two_batches_are_read(batch_size):
    source, seen = counting()
    reader = read_ahead(source, lambda step: np.arange(step * batch_size, (step + 1) * batch_size), range(5, 40))
    ahead = max(2 * -(-batch_size // lazy.PART), lazy.THREADS) / -(-batch_size // lazy.PART)
    for step in range(5, 12):
        found = next(reader)
        assert found.rows.tolist() == list(range(step * batch_size, (step + 1) * batch_size))
        assert (found.values[:, 0, 0, 0] == found.rows % 256).all()
        expected = min(40, step + 1 + ahead) * batch_size - 5 * batch_size
        assert settled(seen, expected) == expected
    assert max(Counter(seen).values()) == 1


def test_a_feed_reads_a_stream_once_and_restarts_after_a_jump():
    source, seen = counting(n=400)
    streams = {name: Dataset({"image": source}, list(range(400)), None, name, "all") for name in ("train", "other")}
    feed = Feed(streams, seed_list=(0,), batch_size=40, mesh=data_mesh(40), limit=0)
    for step in range(10):
        for name in streams:  # each stream has its own position
            rows = feed(Phase(name, 10, (), stream=name), step, 1, {}, 1)
            assert (np.asarray(rows[0]["image"])[:, 0, 0, 0] == rows[2]["index"][0] % 256).all()
    expected = 2 * (400 + 80)
    assert settled(seen, expected) == expected
    feed(Phase("train", 10, ()), 4, 1, {}, 1)
    expected = 2 * 480 + 40 + 80
    assert settled(seen, expected) == expected


def test_a_process_reads_the_rows_of_its_own_devices(monkeypatch):
    source, seen = counting(n=400)
    monkeypatch.setattr(
        "clustering_jax.training.batches.local_batch_indices", lambda count, mesh: np.arange(count // 2)
    )
    feed = Feed(
        {"train": Dataset({"image": source}, list(range(400)), None, "", "all")},
        seed_list=(0,),
        batch_size=40,
        mesh=data_mesh(40),
        limit=0,
    )
    feed._batch = lambda rows, index: rows[index[:20]]  # the prefetched batches have these rows and no others
    found = feed(PHASE, 0, 1, {}, 1)
    assert (found[0]["image"][:, 0, 0, 0] == found[2]["index"][0][:20] % 256).all()
    wanted = {row for step in range(3) for row in batch_indices(0, step, 400, 40)[:20].tolist()}
    assert settled(seen, 60) == 60 and set(seen) == wanted


def test_inference_waits_for_the_device(monkeypatch):
    """Therefore only a few batches are in memory."""
    waited, count = [], 4 * QUEUED

    class Part(np.ndarray):
        def block_until_ready(self):
            waited.append(int(self[0]))

    parts = [np.full(3, i).view(Part) for i in range(count)]
    found = concatenate((part, 2) for part in parts)
    assert waited == list(range(count - QUEUED)) and found.tolist() == np.repeat(np.arange(count), 2).tolist()


# --- The two-level shuffle

SHAPES = [(100, 8, Blocks(10, 3)), (103, 7, Blocks(10, 2)), (64, 16, Blocks(1, 64)), (37, 5, Blocks(50, 1))]


@pytest.mark.parametrize("n, batch_size, blocks", SHAPES, ids=str)
def test_epochs_of_two_levels(n, batch_size, blocks):
    orders = [epoch_permutation(seed, epoch, n, blocks) for seed in (0, 1) for epoch in range(3)]
    assert all(sorted(order.tolist()) == list(range(n)) for order in orders)
    assert len({order.tobytes() for order in orders}) == len(orders)
    epoch_permutation.cache_clear()
    np.testing.assert_array_equal(epoch_permutation(0, 0, n, blocks), orders[0])
    for step in range(2 * (n // batch_size)):
        epoch, place = divmod(step, n // batch_size)
        index = batch_indices(0, step, n, batch_size, blocks)
        np.testing.assert_array_equal(index, orders[epoch][place * batch_size : (place + 1) * batch_size])
        # A batch across the border of two windows has rows of both.
        windows = 2 if blocks.rows * blocks.window >= batch_size else batch_size
        assert len(np.unique(index // blocks.rows)) <= windows * blocks.window


def test_a_window_has_random_blocks_and_mixes_their_rows():
    n, blocks = 6400, Blocks(100, 8)
    order = epoch_permutation(5, 0, n, blocks).reshape(8, 800)  # by window
    found = [np.unique(rows // 100) for rows in order]
    assert all(len(f) == 8 for f in found) and sorted(np.concatenate(found).tolist()) == list(range(64))
    assert min(np.ptp(f) for f in found) > 20
    # The first 400 rows of a window have half of each block: 50 +- 3.5 rows.
    halves = np.array([np.bincount(rows[:400] // 100, minlength=64)[f] for rows, f in zip(order, found, strict=True)])
    assert np.abs(halves - 50).max() < 5 * 3.6


def test_a_window_of_all_blocks_equals_the_full_shuffle():
    for blocks in (Blocks(10, 10), Blocks(7, 15), Blocks(200, 1)):
        np.testing.assert_array_equal(epoch_permutation(2, 1, 100, blocks), epoch_permutation(2, 1, 100))


def test_blocks_and_rows_have_independent_permutations():
    alone = epoch_permutation(0, 0, 100, Blocks(1, 1))
    assert (np.argsort(alone) != epoch_permutation(0, 0, 100)).any()


# --- Whole runs


def streamed_toy(n=40):
    rows = toy.dataset(n)
    lazy_rows = LazyArray((n, 5), lambda wanted: [rows.features["x"][row] for row in wanted])
    object.__setattr__(lazy_rows, "dtype", np.dtype(np.float32))
    return rows._replace(features={"x": lazy_rows})


@pytest.mark.parametrize("options", [{"two_phases": True}, {"two_streams": True}], ids=str)
@pytest.mark.long
def test_a_streamed_run_equals_one_from_memory_also_if_interrupted(tmp_path, monkeypatch, options):
    method, ends = toy.method(**options), {}
    schedule = loop.Schedule(log_every=2, checkpoint_every=4, resident_bytes=0)
    memory = {"train": toy.dataset(), "other": toy.dataset()}
    streams = {"train": streamed_toy(), "other": streamed_toy()}
    ends["memory"] = train_toy(tmp_path / "memory", method, schedule=schedule, streams=memory)
    ends["streamed"] = train_toy(tmp_path / "streamed", method, schedule=schedule, streams=streams)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_at(5, patch)
        train_toy(tmp_path / "cut", method, schedule=schedule, streams=streams)
    ends["resumed"] = train_toy(tmp_path / "cut", method, schedule=schedule, streams=streams)
    sums = {name: checksums(state) for name, state in ends.items()}
    assert sums["streamed"] == sums["resumed"] == sums["memory"]


def config_of(parent, source, **options):
    config = cc("smoke", num_clusters=3, model={"backbone": "resnet18", "width": 2, "image_size": 8}).to_dict()
    paths = {"folder": {"path": str(parent / "photos"), "size": 8, "labels_from_folders": True}}
    paths["tfds"] = {"name": "tiny", "splits": "train", "tfds_dir": str(parent), "size": 8}
    config["data"] = {"source": source, **paths[source], **options}
    config["run"] |= {"resident_gib": 0.0, "evaluate_every": 1}
    return config


@pytest.mark.slow
@pytest.mark.parametrize("source", ["folder", "tfds"])
def test_cc_has_the_metrics_of_a_run_in_memory(parent, tmp_path, source):
    logs = []
    for streaming in (False, True):
        workdir = tmp_path / str(streaming)
        config = config_of(parent, source, streaming=streaming, shuffle_block=8, shuffle_window=2)
        result = run.train(config, workdir)
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        kept = [{k: v for k, v in x.items() if k not in ("images_per_second", "seconds", "seal")} for x in lines]
        logs.append((kept, result["scores"], (workdir / "assignments.csv").read_text()))
    assert len([line for line in logs[0][0] if "loss" in line]) >= 5
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_two_streaming_processes_equal_two_from_memory(parent, tmp_path):
    flags = ["--config=configs/cc_folder.py", f"--config.data.path={parent / 'photos'}", "--config.data.size=8"]
    flags += ["--config.num_clusters=3", "--config.batch_size=8", "--config.epochs=1", "--config.run.resident_gib=0.0"]
    flags += ["--config.model.backbone=resnet18", "--config.model.width=2", "--config.model.image_size=8"]
    for streaming in (False, True):
        distributed.run(tmp_path / str(streaming), [*flags, f"--config.data.streaming={streaming}"])
    memory, streamed = tmp_path / "False", tmp_path / "True"
    assert distributed.checksums(streamed) == distributed.checksums(memory)
    assert distributed.probabilities(streamed) == distributed.probabilities(memory)


# --- Errors


def test_a_broken_image_ends_in_one_line_when_it_is_read_or_is_skipped_from_the_start(tmp_path):
    for i in range(40):
        Image.fromarray(np.full((30, 30, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
    broken = tmp_path / "7.png"
    broken.write_bytes(broken.read_bytes()[:60])  # the header is complete
    streamed = data.load("folder", path=tmp_path, size=8, streaming=True)
    with pytest.raises(UserError, match=r"7\.png can't be read .*; remove it, or set on_error to skip") as error:
        for step in range(5):
            feed_of(streamed)(PHASE, step, 1, {}, 1)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"7\.png"):
        make_infer(lambda v, batch: batch["image"][:, 0, 0, 0], 8)(0, streamed.features)
    memory, skipping = (data.load("folder", path=tmp_path, size=8, streaming=s, on_error="skip") for s in (False, True))
    assert skipping.ids == memory.ids and skipping.notes == memory.notes and "skipped 1" in skipping.notes[0]
    np.testing.assert_array_equal(skipping.features["image"][:], memory.features["image"])


def test_tfds_images_of_several_sizes_need_a_size(tmp_path):
    images = [pixels(0, 1)[0], pixels(1, 1, (8, 9, 3))[0]]
    write_set(tmp_path, {"train": (images, [0, 1])}, shape=(-1, -1, 3))
    streamed = data.load("tfds", name="tiny", splits="train", tfds_dir=str(tmp_path), streaming=True)
    with pytest.raises(UserError, match=r"several sizes, row 1 is .*set size"):
        streamed.features["image"][:]


def test_tfds_records_that_are_damaged(parent, tmp_path):
    root = write_set(tmp_path, {"train": (pixels(0), [0] * 4)})
    (file,) = root.glob("*.array_record*")
    file.write_bytes(file.read_bytes()[:200])
    options = {"name": "tiny", "splits": "train", "tfds_dir": str(tmp_path), "streaming": True}
    for label_key in ("label", ""):
        with pytest.raises(UserError, match=r"rows 0 to .* can't be read .*prepare the set again"):
            data.load("tfds", **options, label_key=label_key)


@pytest.mark.parametrize("options", [{"shuffle_block": -1}, {"shuffle_window": 0}], ids=str)
@pytest.mark.parametrize("source", ["folder", "tfds"])
def test_bad_shuffles(parent, source, options):
    with pytest.raises(UserError, match="give at least 0 rows and 1 block"):
        both(parent, source, **options)


@pytest.mark.parametrize("source", ["folder", "tfds"])
def test_without_grain_the_error_names_the_extra(parent, source, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(UserError, match=r'^streaming needs Grain: pip install "clustering_jax\[stream\]"$'):
        both(parent, source)


def test_kmeans_on_streamed_pixels_is_refused(parent, tmp_path):
    config = config_of(parent, "folder", streaming=True) | {"kmeans_baseline": True}
    with pytest.raises(UserError, match="kmeans_baseline needs all pixels in memory"):
        run.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


MEMORY = """
import resource, sys
import numpy as np
from clustering_jax import data
from clustering_jax.data.base import batch_indices
from clustering_jax.data.images.streaming import read_ahead

found = data.load("folder", path=sys.argv[1], size=128, streaming=True)
n = found.num_examples
reader = read_ahead(found.features["image"], lambda s: np.sort(batch_indices(0, s, n, 64)), range(n // 64))
next(reader)
began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert sum(len(read.rows) for read in reader) == n // 64 * 64 - 64
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began) / 1024, n * 128 * 128 * 3 / 2**20)
"""


@pytest.mark.long
def test_memory_does_not_grow_with_the_set(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((128, 128, 3), np.uint8)).save(tmp_path / "one.png")
    for i in range(2500):
        os.link(tmp_path / "one.png", tmp_path / "photos" / f"{i}.png")
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "photos")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    grown, whole = map(float, done.stdout.split())
    assert whole > 110 and grown < 30, f"{grown:.0f} MiB of {whole:.0f}"


def test_real_cifar10():
    shared = ROOT.parent / "shared" / "tfds"
    if not shared.is_dir():
        pytest.skip("../shared is absent: no prepared CIFAR-10")
    options = {"name": "cifar10", "splits": "test[:2000]", "tfds_dir": str(shared)}
    memory, streamed = (data.load("tfds", **options, streaming=s) for s in (False, True))
    np.testing.assert_array_equal(memory.labels, streamed.labels)
    np.testing.assert_array_equal(memory.features["image"][::7], streamed.features["image"][::7])
