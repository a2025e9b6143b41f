"""Runs of several processes on this machine give the numbers of one process; tests writes, signals and resumption."""

import csv
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import ClassVar

import fsspec
import jax
import numpy as np
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

from clustering_jax import main
from clustering_jax.errors import UserError
from clustering_jax.files import read_json, write_json
from clustering_jax.methods.cache import ArrayCache
from clustering_jax.parallel import data_mesh
from clustering_jax.training.checkpoint import Store
from clustering_jax.training.log import MetricsLog
from tests.paths import ROOT
from tests.test_run import environment

HEARTBEAT = 10
BATCH = ["--config.batch_size=8", "--config.run.evaluate_every=0", "--config.run.checkpoint_every=0"]
# Twenty steps of each method.
METHODS = {
    "cc": ["--config=configs/cc_digits.py:smoke", *BATCH, "--config.epochs=10", "--config.model.width=4"],
    "cmmc": [
        *("--config=configs/cmmc_digits.py:smoke", *BATCH, "--config.epochs=4", "--config.model.matching_steps=4"),
        *("--config.model.reconstruction_epochs=4", "--config.model.hidden=(8,)", "--config.model.latent_dim=6"),
    ],
    # The weights are small, so that rounding errors grow least.
    "dmim": ["--config=configs/dmim_planted.py:smoke", *BATCH, "--config.model.head_std=0.02", "--config.epochs=20"],
    "dxmc": [
        *("--config=configs/dxmc_embeddings.py:smoke", *BATCH, "--config.epochs=10"),
        *("--config.model.hidden=8", "--config.model.instance_dim=8"),
    ],
}
CASES = {
    **METHODS,
    "dxmc, streamed": [*METHODS["dxmc"], "--config.run.resident_gib=1e-9"],
    "dmim, ten steps a call": [*METHODS["dmim"], "--config.run.log_every=10"],
    "cmmc, two seeds": [*METHODS["cmmc"], "--config.num_seeds=2"],
}
# There are evaluations between the steps, so that a signal arrives during the run.
TOTAL = 40
LONG = [*METHODS["dmim"][:-1], f"--config.epochs={TOTAL}", "--config.run.evaluate_every=2", "--config.run.keep=100"]


def start(workdir, flags, processes=2, devices=2, last=()):
    """Starts the processes of a run with simulated devices. The last process can have flags of its own."""
    variables = {**environment(), "JAX_NUM_CPU_DEVICES": str(devices)}
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "clustering_jax.main", *flags, f"--workdir={workdir}"]
    numbers = [f"--coordinator={address}", f"--num_processes={processes}", f"--heartbeat={HEARTBEAT}"]
    each = [[*numbers, f"--process_id={i}"] for i in range(processes)] if processes > 1 else [[]]
    each[-1] += last
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen([*command, *own], cwd=ROOT, env=variables, **pipes) for own in each]


def ended(processes, timeout=240):
    """Waits for all processes, and returns exit codes, standard outputs and errors."""
    until = time.monotonic() + timeout
    try:
        texts = [process.communicate(timeout=max(until - time.monotonic(), 1)) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], *map(list, zip(*texts, strict=True))


def here(monkeypatch, *flags):
    """Runs the same command in this process, which has eight devices."""
    monkeypatch.chdir(ROOT)
    main.main(["main", *map(str, flags)])


def run(workdir, flags, **numbers):
    codes, outs, errs = ended(start(workdir, flags, **numbers))
    assert not any(codes), errs
    return outs


def lines(workdir):
    path = workdir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def assert_same_losses(ours, theirs, first=1, last=1000):
    """Compares every term of the steps `first` to `last` that both have. There must be some."""
    kept = [[x for x in each if "loss" in x and first <= x["step"] <= last] for each in (ours, theirs)]
    assert kept[0] and [x["step"] for x in kept[0]] == [x["step"] for x in kept[1]]
    for x, y in zip(*kept, strict=True):
        names = [k for k, v in y.items() if isinstance(v, float) and k not in ("images_per_second", "grad_norm")]
        np.testing.assert_allclose([x[k] for k in names], [y[k] for k in names], rtol=1e-5, atol=1e-5, err_msg=str(x))


def probabilities(workdir):
    with (workdir / "assignments.csv").open() as file:
        return [float(row["probability"]) for row in csv.DictReader(file)]


def wait_for_step(workdir, step, processes):
    until = time.monotonic() + 200
    while time.monotonic() < until and all(process.poll() is None for process in processes):
        found = lines(workdir)
        if found and found[-1]["step"] >= step:
            return
        time.sleep(0.01)


def saved(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def checksums(workdir):
    """The checksum of every array of the newest checkpoint."""
    store = Store(workdir / "checkpoints", read_only=True)
    meta = store.newest_meta()
    store.close()
    return meta["checksums"]


def stopped(workdir, number, flags=LONG, step=2):
    """Sends a signal to one of two processes after a step is logged, and returns the step that both saved."""
    processes = start(workdir, flags)
    wait_for_step(workdir, step, processes)
    processes[number].send_signal(signal.SIGTERM)
    codes, _, errs = ended(processes)
    assert codes == [75, 75], errs
    (at,) = {next(line for line in err.splitlines() if line.startswith("interrupted:")) for err in errs}
    assert f"step {saved(workdir)[-1]} of {TOTAL} is saved" in at
    return saved(workdir)[-1]


@pytest.mark.long
def test_two_processes_train_stop_and_resume_like_one(tmp_path, monkeypatch, capfd):
    """DMIM on two processes of two devices, with SIGTERM to the second, equals one process of eight devices."""
    here(monkeypatch, *LONG, f"--workdir={tmp_path / 'one'}")
    (table,) = (line for line in capfd.readouterr().out.splitlines() if "clusters occupied" in line)
    step = stopped(tmp_path / "two", 1)
    assert 2 <= step < TOTAL and not (tmp_path / "two" / "result.json").exists()
    first, second = run(tmp_path / "two", LONG)
    assert_same_losses(lines(tmp_path / "two"), lines(tmp_path / "one"))
    assert [x["step"] for x in lines(tmp_path / "two")] == [x["step"] for x in lines(tmp_path / "one")]
    assert f"resuming at step {step} of {TOTAL}" in first and table.partition(";")[0] in first
    # Gloo also writes to this stream, from several threads.
    assert not any(word in second for word in ("resuming", "ACC", "step ", "report"))
    # Sums over other numbers of devices are rounded differently, and the difference grows with every step.
    np.testing.assert_allclose(probabilities(tmp_path / "two"), probabilities(tmp_path / "one"), rtol=2e-3)
    assert {path.name for path in (tmp_path / "one").iterdir()} == {path.name for path in (tmp_path / "two").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_method_has_the_losses_of_one_process(tmp_path, case):
    run(tmp_path / "one", CASES[case], processes=1, devices=4)
    run(tmp_path / "two", CASES[case])
    assert lines(tmp_path / "one")[-1]["step"] == 20
    assert_same_losses(lines(tmp_path / "two"), lines(tmp_path / "one"))
    np.testing.assert_allclose(probabilities(tmp_path / "two"), probabilities(tmp_path / "one"), atol=1e-4)


@pytest.mark.slow
def test_resumes_on_any_number_of_devices(tmp_path):
    """Runs resume from one checkpoint of two processes: bitwise on two processes, up to 1e-5 on other numbers."""
    run(tmp_path / "whole", LONG)
    step = stopped(tmp_path / "cut", 0)
    for name, numbers in {"1": (1, 1), "2": (1, 2), "4": (1, 4), "2 of 1": (2, 1), "2 of 2": (2, 2)}.items():
        shutil.copytree(tmp_path / "cut", tmp_path / name)
        run(tmp_path / name, LONG, processes=numbers[0], devices=numbers[1])
        assert_same_losses(lines(tmp_path / name), lines(tmp_path / "whole"), first=step + 1, last=step + 20)
    assert checksums(tmp_path / "2 of 2") == checksums(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_one_failed_process_ends_the_others_and_the_command_resumes(tmp_path, number):
    flags = [*LONG, "--config.run.checkpoint_every=2"]
    processes = start(tmp_path, flags)
    wait_for_step(tmp_path, 9, processes)
    processes[number].kill()
    before = time.monotonic()
    codes, _, _ = ended(processes)
    assert time.monotonic() - before < 3 * HEARTBEAT and codes[number] == -signal.SIGKILL
    assert codes[1 - number] not in (0, 2, 3, 75)
    at = saved(tmp_path)[-1]
    assert at >= 8
    first, _ = run(tmp_path, flags)
    assert f"resuming at step {at} of {TOTAL}" in first
    assert [x["step"] for x in lines(tmp_path) if "loss" in x] == list(range(1, TOTAL + 1))


@pytest.mark.slow
def test_a_damaged_checkpoint_is_set_aside_once(tmp_path):
    flags = [*LONG, "--config.run.checkpoint_every=10"]
    run(tmp_path, flags)
    expected = checksums(tmp_path)
    (tmp_path / "result.json").unlink()
    largest = max(
        (p for p in (tmp_path / "checkpoints" / str(TOTAL)).rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0x10
    largest.write_bytes(bytes(content))
    processes = start(tmp_path, flags)
    codes, outs, errs = ended(processes)
    assert codes == [0, 0], errs
    assert "resuming at step 20 of 40" in outs[0] and "checkpoint 40" in errs[0] and "damaged" not in errs[1]
    assert (tmp_path / "damaged" / "checkpoints_40").is_dir() and checksums(tmp_path) == expected


@pytest.mark.slow
def test_a_signal_before_the_loop_saves(tmp_path):
    processes = start(tmp_path, LONG)
    until = time.monotonic() + 60
    while not (tmp_path / "config.json").exists() and time.monotonic() < until:
        time.sleep(0.01)
    processes[0].send_signal(signal.SIGTERM)
    codes, _, errs = ended(processes)
    assert codes == [75, 75] and saved(tmp_path)[-1] < 10, errs


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    codes, _, errs = ended(start(tmp_path / "run", [*METHODS["dmim"], "--config.batch_size=10"]))
    assert codes == [2, 2] and not (tmp_path / "run").exists()
    for err in errs:
        (line,) = [line for line in err.splitlines() if line.startswith("error:")]
        assert "batch size 10" in line and "4 devices of 2 processes" in line


@pytest.mark.slow
def test_an_error_of_one_process_ends_all_processes(tmp_path):
    codes, _, errs = ended(start(tmp_path, METHODS["dmim"], last=["--config.num_clusters=5000"]))
    assert codes[1] == 2 and "error: num_clusters is 5000" in errs[1] and codes[0] not in (0, 2, 3, 75)


@pytest.mark.slow
def test_a_workdir_that_is_not_shared_is_refused(tmp_path):
    codes, _, errs = ended(start(tmp_path / "mine", METHODS["dmim"], last=[f"--workdir={tmp_path / 'other'}"]))
    assert codes == [2, 2] and all("is not shared: all processes need the same directory" in err for err in errs)


def test_a_batch_that_cannot_be_shared(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="batch size 12 is not a multiple of the 8 devices of 2 processes"):
        data_mesh(12)
    assert data_mesh(16).size == 8


ALL = ["--coordinator=a:1", "--num_processes=2", "--process_id=0"]


@pytest.mark.parametrize(
    "flags, words",
    [
        (ALL[:1], "--num_processes is missing"),
        (ALL[1:], "--coordinator is missing"),
        (ALL[:2], "--process_id is missing"),
        ([*ALL, "--distributed=auto"], "leave those out"),
        ([ALL[1], "--distributed=auto"], "leave those out"),
        (["--distributed=slurm"], "--distributed=slurm"),
        (["--coordinator=a", *ALL[1:]], "HOST:PORT"),
        ([*ALL[:2], "--process_id=2"], "--process_id=2 of 2"),
        ([*ALL[:2], "--process_id=-1"], "process_id=-1"),
        ([*ALL, "--num_processes=0"], "num_processes=0"),
        ([*ALL, "--heartbeat=0"], "heartbeat=0"),
        ([*ALL, "--heartbeat=soon"], "heartbeat=soon"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_contradicting_flags_are_refused(tmp_path, monkeypatch, flags, words):
    with pytest.raises(UserError, match=words) as error:
        here(monkeypatch, *METHODS["dmim"], f"--workdir={tmp_path / 'run'}", *flags)
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


class Bucket(MemoryFileSystem):
    """A bucket in memory with the interface of gcsfs."""

    protocol = ("gcs", "gs")
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("gs://").strip("/")


def test_a_workdir_in_a_bucket():
    """Tests all files except checkpoints, which tensorstore writes."""
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    workdir = epath.Path("gs://bucket/run")
    write_json(workdir / "config.json", {"seed": 1})
    assert read_json(workdir / "config.json") == {"seed": 1} and read_json(workdir / "result.json") is None
    for first, seen in ((0, [1, 2]), (1, [1, 2])):
        with MetricsLog(workdir / "metrics.jsonl", first, 9, 8) as log:
            for step in range(first + 1, 3):
                log.add({"loss": np.ones(1)}, 1)
                log.flush(step, "one")
        assert [x["step"] for x in lines(workdir)] == seen
    rows, calls = np.arange(6.0), []
    for _ in range(2):
        found = ArrayCache(workdir / "prepared", jax.random.key(0))("rows", (), lambda: calls.append(1) or rows)
        np.testing.assert_array_equal(found, rows)
    assert len(calls) == 1
    assert sorted(path.name for path in workdir.iterdir()) == ["config.json", "metrics.jsonl", "prepared"]


def test_a_bucket_that_cannot_be_reached(monkeypatch):
    def fails(self):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr(type(epath.Path("gs://bucket")), "exists", fails)
    with pytest.raises(UserError, match=r"--workdir=gs://bucket/run can't be reached: Please install gcsfs"):
        here(monkeypatch, *METHODS["dmim"], "--workdir=gs://bucket/run")
