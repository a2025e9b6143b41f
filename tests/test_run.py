"""Tests whole runs from the command line: files of the workdir, resumption, errors, exit codes."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from clustering_jax import cli, main, predict
from clustering_jax.training.checkpoint import Store
from tests.paths import ROOT

# A whole CC run in seconds: a thin encoder on 8 x 8 digits.
TINY = [
    "--config=configs/cc_digits.py",
    "--config.model.width=4",
    "--config.model.image_size=8",
    "--config.batch_size=512",
    "--config.epochs=4",
    "--config.run.log_every=1",
    "--config.run.evaluate_every=2",
    "--config.run.checkpoint_every=1",
    "--config.kmeans_baseline=False",
]


def environment():
    """The environment of a process with one device and the compiler options of the tests."""
    flags = " ".join(flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag)
    return {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def start(module, *flags):
    command = [sys.executable, "-m", f"clustering_jax.{module}", *map(str, flags)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def call(module, *flags):
    process = start(module, *flags)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def refusal(monkeypatch, capfd, module, *flags):
    """Runs a command in this process that must end with exit code 2, and returns its one-line error."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: module.main([module.__name__, *flags]))
    err = capfd.readouterr().err
    assert ended.value.code == 2 and len(err.strip().splitlines()) == 1, err
    return err


def checksums(workdir):
    """The checksum of every array of the newest checkpoint."""
    store = Store(workdir / "checkpoints", read_only=True)
    meta = store.newest_meta()
    store.close()
    return meta["checksums"]


def metrics(workdir):
    path = workdir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A complete run, and its output."""
    workdir = tmp_path_factory.mktemp("run") / "digits"
    code, out, err = call("main", *TINY, f"--workdir={workdir}")
    assert code == 0, err
    return workdir, out


@pytest.mark.long
def test_the_workdir_has_the_documented_files(finished):
    workdir, out = finished
    result = json.loads((workdir / "result.json").read_text())
    assert set(result["scores"]) >= {
        "acc",
        "nmi",
        "ari",
        "purity",
        "ami",
        "fmi",
        "occupied",
        "entropy",
        "confidence",
        "knn_accuracy",
        "knn_consistency",
    }
    assert result["protocol"]["trained_on"] == result["protocol"]["scored_on"]
    assert result["seed"] == 0 and result["wall_time_seconds"] > 0 and "jax" in result["versions"]
    assert json.loads((workdir / "config.json").read_text())["model"]["width"] == 4
    steps = [line for line in metrics(workdir) if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 13))
    terms = {"instance", "cluster", "imbalance", "loss", "images_per_second", "occupied", "entropy", "phase"}
    assert all(terms <= set(line) for line in steps)
    line = steps[-1]
    assert line["loss"] == pytest.approx(line["instance"] + line["cluster"] + line["imbalance"], rel=1e-5)
    assert 0 <= line["entropy"] <= np.log(10) + 1e-5
    assert "ACC" in out and "trained on digits" in out
    assert out.splitlines()[-1] == f"report: {workdir}/report.html"
    assert '"data:image/png;base64,"' in (workdir / "report.html").read_text()
    assert not list(workdir.glob(".*part"))


@pytest.mark.long
def test_assignments_are_in_input_order(finished):
    rows = list(csv.DictReader((finished[0] / "assignments.csv").open()))
    assert [row["id"] for row in rows] == [str(i) for i in range(1797)]
    assert all(0 <= int(row["cluster"]) < 10 and 0.1 <= float(row["probability"]) <= 1 for row in rows)


@pytest.mark.long
def test_a_finished_run_is_not_repeated(finished, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["main", *TINY, f"--workdir={finished[0]}"])
    main.main(sys.argv)
    assert f"{finished[0]} is finished" in capsys.readouterr().out


@pytest.mark.long
def test_another_config_in_the_same_workdir_is_refused(finished, monkeypatch, capfd):
    changes = "--config.seed=1", "--config.model.width=5"
    err = refusal(monkeypatch, capfd, main, *TINY, f"--workdir={finished[0]}", *changes)
    assert "seed (0 there, 1 now)" in err and "model.width" in err


def wait_for_step(workdir, step, process):
    until = time.monotonic() + 240
    while time.monotonic() < until and process.poll() is None:
        lines = metrics(workdir)
        if lines and lines[-1]["step"] >= step:
            return
        time.sleep(0.01)


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.long
def test_kills_at_random_moments_end_bitwise_equal(finished, tmp_path, kills):
    """Each kill comes at a random moment after a random step is logged: in a step, an evaluation or a save."""
    rng, workdir, killed = random.Random(0), tmp_path / "killed", 0
    for step in sorted(rng.sample(range(1, 12), kills)):
        process = start("main", *TINY, f"--workdir={workdir}")
        wait_for_step(workdir, step, process)
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed == kills
    code, _, err = call("main", *TINY, f"--workdir={workdir}")
    assert code == 0, err
    assert checksums(workdir) == checksums(finished[0])
    assert (workdir / "assignments.csv").read_text() == (finished[0] / "assignments.csv").read_text()
    assert [line["step"] for line in metrics(workdir)] == [line["step"] for line in metrics(finished[0])]


@pytest.mark.long
def test_sigterm_saves_exits_75_and_resumes_bitwise_equal(finished, tmp_path):
    workdir = tmp_path / "stopped"
    process = start("main", *TINY, "--config.run.checkpoint_every=0", f"--workdir={workdir}")
    wait_for_step(workdir, 4, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75 and "is saved" in err, err
    assert any(p.name.isdigit() for p in (workdir / "checkpoints").iterdir())
    code, _, _ = call("main", *TINY, "--config.run.checkpoint_every=0", f"--workdir={workdir}")
    assert code == 0 and checksums(workdir) == checksums(finished[0])


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_outside_of_the_loop_exits_75(name):
    program = (
        "import time; from clustering_jax import cli; cli.run(lambda: (print('ready', flush=True), time.sleep(60)))"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, **pipes)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=30)
    assert process.returncode == 75 and err.startswith("interrupted:") and len(err.splitlines()) == 1


@pytest.mark.long
def test_a_loss_that_is_not_finite_exits_3_with_a_good_checkpoint(tmp_path):
    flags = [*TINY, "--config.optimizer.learning_rate=1e30", f"--workdir={tmp_path / 'bad'}"]
    code, _, err = call("main", *flags)
    assert code == 3 and "not finite" in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "bad" / "result.json").exists()


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--config=configs/cc_digits.py", "--config.batchsize=4"], ["'batchsize' Did you mean \"batch_size\""]),
        (["--config=configs/cc_digits.py", "--config.batch_size=many"], ["batch_size"]),
        (["--config=configs/absent.py"], ["absent.py"]),
        (["--config=configs/cc_digits.py:smok"], ["smok", "smoke"]),
        (["--config=configs/cc_digits.py", "--config.num_clusters=5000"], ["num_clusters", "1797"]),
        (["--config=configs/cc_digits.py", "--config.model.backbone=resnet81"], ["resnet81", "resnet18"]),
        (["--config=configs/cc_digits.py", "--config.epochs=0"], ["epochs"]),
        (["--config=configs/cc_digits.py", "--config.init_from=absent.tar"], ["absent.tar"]),
        (["--config=configs/cc_digits.py", "--config.augment.kind=digit"], ["digit", "digits"]),
        (["--config=configs/cc_folder.py", "--config.data.path=absent/"], ["absent"]),
        (["--config=configs/cc_cifar10.py", "--config.data.tfds_dir=absent/"], ["cifar10", "prepare"]),
        ([], ["--config"]),
    ],
    ids=lambda value: " ".join(value)[-40:],
)
@pytest.mark.long
def test_errors_are_one_line_and_write_nothing(tmp_path, monkeypatch, capfd, flags, words):
    err = refusal(monkeypatch, capfd, main, *flags, f"--workdir={tmp_path / 'run'}")
    assert all(word in err for word in words), err
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_process_ends_in_the_same_way(tmp_path):
    flags = ["--config=configs/cc_digits.py", "--config.num_clusters=5000", f"--workdir={tmp_path / 'run'}"]
    code, out, err = call("main", *flags)
    assert code == 2 and not out and err.startswith("error: ") and len(err.strip().splitlines()) == 1, err


@pytest.mark.long
def test_a_smaller_set_than_the_batch_trains_with_a_warning(tmp_path):
    np.save(tmp_path / "few.npy", np.random.default_rng(0).integers(0, 255, (20, 8, 8), np.uint8))
    flags = ["--config=configs/cc_arrays.py", "--config.model.width=4", "--config.epochs=1", "--config.num_clusters=3"]
    flags.append("--config.model.backbone=resnet18")
    data = f"--config.data.path={tmp_path / 'few.npy'}"
    code, out, err = call("main", *flags, data, "--config.model.image_size=8", f"--workdir={tmp_path / 'run'}")
    assert code == 0 and "batch size 20 instead of 128" in err and "labels: none" in out, err
    assert "acc" not in json.loads((tmp_path / "run" / "result.json").read_text())["scores"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Writes the digits as `.npy`, as `.npz` and as a folder of PNGs."""
    from clustering_jax.data import load

    directory, images = tmp_path_factory.mktemp("images"), load("digits").features["image"]
    np.save(directory / "digits.npy", images)
    np.savez(directory / "digits.npz", image=images)
    (directory / "folder").mkdir()
    for i, image in enumerate(images[:40]):
        Image.fromarray(image[..., 0]).save(directory / "folder" / f"digit_{i:03}.png")
    return directory


@pytest.mark.parametrize(
    "name, count", [("digits.npy", 1797), pytest.param("digits.npz", 1797, marks=pytest.mark.slow), ("folder", 40)]
)
@pytest.mark.long
def test_predict_gives_the_assignments_of_the_run(finished, digits, tmp_path, name, count):
    output = tmp_path / "out.csv"
    code, _, err = call("predict", f"--workdir={finished[0]}", f"--input={digits / name}", f"--output={output}")
    assert code == 0, err
    ours, theirs = (list(csv.DictReader(p.open())) for p in (output, finished[0] / "assignments.csv"))
    assert [row["cluster"] for row in ours] == [row["cluster"] for row in theirs[:count]]
    np.testing.assert_allclose(*[[float(r["probability"]) for r in x] for x in (ours, theirs[:count])], atol=1e-5)


@pytest.mark.parametrize(
    "workdir, source, output, word",
    [
        ("absent", "digits.npy", "out.csv", "no checkpoints"),
        ("", "absent.npy", "out.csv", "absent.npy"),
        ("", "digits.npy", "absent/out.csv", "absent"),
    ],
)
@pytest.mark.long
def test_predict_refuses_in_one_line(finished, digits, tmp_path, monkeypatch, capfd, workdir, source, output, word):
    where = tmp_path / workdir if workdir else finished[0]
    flags = [f"--workdir={where}", f"--input={digits / source}", f"--output={tmp_path / output}"]
    assert word in refusal(monkeypatch, capfd, predict, *flags)
    assert not list(tmp_path.rglob("*.csv")) and not list(tmp_path.rglob("*.part"))


@pytest.mark.long
def test_predict_alternates_reading_and_writing(finished, digits, monkeypatch):
    """Memory is constant: no chunk is read before the lines of the previous chunk are written."""
    from clustering_jax.inference import new_rows

    read = []
    original = new_rows.iter_images
    monkeypatch.setattr(
        new_rows, "iter_images", lambda *a, **k: (read.append(len(c[0])) or c for c in original(*a, **k))
    )
    stream = new_rows.lines(new_rows.Predictor.restore(finished[0], batch_size=64), digits / "digits.npy", 64)
    for chunk in (1, 2, 3):
        # The first chunk has the names of the columns too.
        assert len(next(stream).splitlines()) == 64 + (chunk == 1) and len(read) == chunk
