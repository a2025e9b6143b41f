"""Outputs are checked before the work, written as a whole, and never the input; a workdir belongs to one process."""

import errno
import fcntl
import io
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from clustering_jax import choose_k, main, predict
from clustering_jax.data.views.files import names
from clustering_jax.errors import UserError
from clustering_jax.files import (
    output_directory,
    output_file,
    read_json,
    read_json_lines,
    remove_partials,
    write_atomic,
    write_json,
)
from clustering_jax.inference.predictor import Predictor
from clustering_jax.inference.results import write_assignments
from clustering_jax.training.lock import locked
from clustering_jax.training.log import MetricsLog
from clustering_jax.training.workdir import finished
from tests import runs
from tests.paths import ROOT


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return runs.workdir_of("dmim", tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def new_rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("new") / "new.npz"
    np.savez(path, **runs.rows("dmim", 12))
    return path


def predicted(workdir, new_rows, output, *more):
    predict.main(["predict", f"--workdir={workdir}", f"--input={new_rows}", f"--output={output}", *more])


def test_the_home_directory_is_found(home, workdir, new_rows):
    (home / "run").symlink_to(workdir)
    predicted("~/run", new_rows, "~/out.csv")
    assert len((home / "out.csv").read_text().splitlines()) == 13
    assert output_directory("~/x/y", "--workdir") == home / "x" / "y"
    with locked("~/x/y", "--workdir"):
        assert (home / "x" / "y").is_dir()
    assert not (home.parent / "~").exists()


# An output, and what the one line says; the input is "in/a.npz" in the folder "in".
REFUSED = {
    "a directory": ("in", "is a directory"),
    "nothing": ("", "is a directory"),
    "no such directory": ("none/out.csv", "no directory"),
    "below a file": ("in/a.npz/out.csv", "no directory"),
    "the input": ("in/a.npz", "is a file of the input"),
    "the input by a link": ("link.npz", "is a file of the input"),
    "the input by a hard link": ("hard.npz", "is a file of the input"),
    "a place that takes no files": ("/proc/out.csv", "can't be written"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_outputs_are_refused_before_the_work(tmp_path, monkeypatch, workdir, case):
    output, words = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    np.savez("in/a.npz", **runs.rows("dmim", 12))
    Path("link.npz").symlink_to("in/a.npz")
    os.link("in/a.npz", "hard.npz")
    before = Path("in/a.npz").read_bytes()
    monkeypatch.setattr(Predictor, "restore", lambda *_, **__: pytest.fail("the work began"))
    with pytest.raises(UserError, match=words):
        predicted(workdir, "in/a.npz", output)
    assert Path("in/a.npz").read_bytes() == before


def test_a_file_of_an_input_folder_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.ones(3))
    with pytest.raises(UserError, match="of the input"):
        output_file(tmp_path / "a.npy", "--output", tmp_path)
    assert output_file(tmp_path / "new.csv", "--output", tmp_path) == tmp_path / "new.csv"
    assert output_file(tmp_path / "new.csv", "--output", *names("none.npz,other.npz")) == tmp_path / "new.csv"


def test_choose_k_refuses_a_file_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    monkeypatch.setattr(choose_k, "choose_k", lambda *_: pytest.fail("the work began"))
    flags = ["choose_k", f"--config={ROOT / 'configs' / 'cmmc_digits.py'}"]
    with pytest.raises(UserError, match="is a file"):
        choose_k.main([*flags, f"--output={tmp_path / 'file'}"])
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("workdir", ["file/run", "/proc/run", "file", "file:///tmp/run"])
def test_a_workdir_that_can_not_be(tmp_path, monkeypatch, workdir):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("kept")
    with pytest.raises(UserError, match=r"^--workdir=.*(can't be written|is a file|without file:)"):
        main.main(["main", f"--config={ROOT / 'configs' / 'cmmc_digits.py'}:smoke", f"--workdir={workdir}"])
    assert os.listdir() == ["file"]


@pytest.mark.parametrize("rows", ["1000000000", "5", "0"])
def test_a_batch_of_any_size(tmp_path, workdir, new_rows, rows):
    """The first was killed for memory."""
    predicted(workdir, new_rows, tmp_path / "out.csv", f"--batch_size={rows}")
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 13


def test_a_negative_batch(tmp_path, workdir, new_rows):
    with pytest.raises(UserError, match="batch_size=-1"):
        predicted(workdir, new_rows, tmp_path / "out.csv", "--batch_size=-1")


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "a.txt"
    for name in ("link", "dangling"):
        (tmp_path / name).symlink_to(target)
        write_atomic(tmp_path / name, [name])
        assert (tmp_path / name).is_symlink() and target.read_text() == name
        target.unlink()
    assert os.listdir(tmp_path / "real") == []


def test_a_pipe_is_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(tmp_path / "pipe", ["a\n", "b\n"])
    assert os.read(reader, 9) == b"a\nb\n" and (tmp_path / "pipe").is_fifo()
    os.close(reader)


def test_names_that_are_not_utf8(tmp_path):
    """The run trained to its end, and then could not write its assignments."""
    name = os.fsdecode(b"caf\xe9.png")
    write_assignments(tmp_path / "assignments.csv", [name, "é"], np.eye(2))
    assert (tmp_path / "assignments.csv").read_bytes().splitlines()[1:] == [
        b"caf\xe9.png,0,1.000000",
        "é,1,1.000000".encode(),
    ]
    write_json(tmp_path / "ids.json", [name])
    assert read_json(tmp_path / "ids.json") == [name]


# The calls of the system that write a file, and how they fail.
CALLS = ["open", "write", "fsync", "replace"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("call", CALLS)
def test_an_error_of_the_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch, call, code):
    path = tmp_path / "result.json"
    path.write_text("old")

    def fails(*_, **__):
        raise OSError(code, os.strerror(code))

    class Full(io.StringIO):
        write = fails

        def fileno(self):
            return 0

    patches = {
        "open": (Path, "open", fails),
        "write": (Path, "open", lambda *_, **__: Full()),
        "fsync": (os, "fsync", fails),
        "replace": (Path, "replace", fails),
    }
    monkeypatch.setattr(*patches[call])
    with pytest.raises(UserError, match=f"can't be written .{os.strerror(code)}"):
        write_json(path, {"new": 1})
    monkeypatch.undo()
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["result.json"]


def test_a_full_disk_while_logging_is_one_line(tmp_path, monkeypatch):
    with MetricsLog(tmp_path / "metrics.jsonl", 0, 9, 8, quiet=True) as log:
        log._file.close()
        log._file = Path("/dev/full").open("a", buffering=1)  # noqa: SIM115
        with pytest.raises(UserError, match="No space left"):
            log.report(1, {"acc": 1.0})
        log._file = None


def test_a_file_and_its_name_are_on_the_disk(tmp_path, monkeypatch):
    """Before the file has its name, its content is there; then the directory."""
    calls, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(os.readlink(f"/proc/self/fd/{fd}")) or real(fd))
    write_json(tmp_path / "a.json", {})
    assert [Path(name).suffix for name in calls] == [".part", ""] and calls[1] == str(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1, 2]", b"7", b'{"a": ', b"[" * 100_000, b'"text"', b"null"])
def test_a_damaged_json_file_counts_as_missing(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged"):
        assert read_json(tmp_path / "result.json", dict) is None
    with pytest.warns(UserWarning, match="is damaged"):
        assert finished(tmp_path) is None


def test_files_that_can_not_be_read(tmp_path):
    (tmp_path / "result.json").mkdir()
    with pytest.raises(UserError, match=r"can't be read .Is a directory"):
        finished(tmp_path)
    assert read_json(tmp_path / "none" / "a.json") is None and finished(tmp_path / "none") is None


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"seed": "3"}, {"scores": None}, {"seeds": {"each": [{}]}}, {"wall_time_seconds": "1"}]
)
def test_a_result_that_contradicts_itself(tmp_path, change):
    each = [{"seed": 3, "criterion": 0.1}, {"seed": 4, "criterion": 0.2}]
    result = {
        "scores": {},
        "protocol": {},
        "baselines": [],
        "seed": 3,
        "wall_time_seconds": 1.0,
        "seeds": {"each": each},
    }
    write_json(tmp_path / "result.json", result)
    assert finished(tmp_path) == result
    write_json(tmp_path / "result.json", {**result, **change})
    with pytest.warns(UserWarning, match="is damaged"):
        assert finished(tmp_path) is None


LINES = b'{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n{"step": 3, "loss": 0.125}\n'


def test_a_flipped_bit_of_the_log_is_survived(tmp_path):
    for bit in np.random.default_rng(0).choice(8 * len(LINES), 120, replace=False):
        content = bytearray(LINES)
        content[bit // 8] ^= 1 << bit % 8
        (tmp_path / "metrics.jsonl").write_bytes(content)
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            log = MetricsLog(tmp_path / "metrics.jsonl", 2, 9, 8, quiet=True)
        log.__exit__()
        found, whole = read_json_lines(tmp_path / "metrics.jsonl")
        assert whole and all(type(values["step"]) is int and values["step"] <= 2 for values in found)


def test_a_changed_digit_of_the_log_is_seen(tmp_path):
    """Each line is sealed, also when an older log without checksums goes on."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(LINES)
    with MetricsLog(path, 2, 9, 8, quiet=True) as log:
        log.report(3, {"acc": 0.75})
    wanted = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}, {"step": 3, "eval/acc": 0.75}]
    assert read_json_lines(path) == (wanted, True)
    lines = path.read_bytes()
    for old, new in ((b"0.25", b"0.26"), (b"0.75", b"0.7"), (b'"step": 1', b'"step": 0')):
        path.write_bytes(lines.replace(old, new))
        at = next(i for i, line in enumerate(lines.splitlines()) if old in line)
        assert read_json_lines(path) == (wanted[:at], False)


def test_a_damaged_log_is_kept_aside(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(LINES.replace(b'{"step": 2', b'{"step"\xff 2'))
    with pytest.warns(UserWarning, match="damaged after 1 lines"):
        MetricsLog(tmp_path / "metrics.jsonl", 2, 9, 8, quiet=True).__exit__()
    assert read_json_lines(tmp_path / "metrics.jsonl") == ([{"step": 1, "loss": 0.5}], True)
    assert b"\xff" in (tmp_path / "metrics.jsonl.damaged").read_bytes()


HOLDER = """
import sys, time
sys.path.insert(0, {root!r})
from clustering_jax.training.lock import locked
with locked({path!r}, "--workdir"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.long
def test_a_workdir_is_released_by_death(tmp_path):
    code = HOLDER.format(root=str(ROOT), path=str(tmp_path / "run"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=f"in use by process {holder.pid} on {os.uname().nodename}"),
            locked(tmp_path / "run", "--workdir"),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with locked(tmp_path / "run", "--workdir"):
        pass


def test_a_workdir_belongs_to_one(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".result.json.123.part").write_text("unfinished")
    (tmp_path / "run" / "result.json").write_text("{}")
    with locked(tmp_path / "run", "--workdir"):
        with pytest.raises(UserError, match=f"process {os.getpid()}"), locked(tmp_path / "run", "--workdir"):
            pass
        assert sorted(os.listdir(tmp_path / "run")) == [".lock", "result.json"]
    with locked(tmp_path / "run", "--workdir"):
        pass


def test_a_directory_with_nothing_in_it_is_removed(tmp_path):
    with locked(tmp_path / "run", "--workdir"):
        assert (tmp_path / "run").is_dir()
    assert os.listdir(tmp_path) == []


def test_a_file_system_without_locks_says_so(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.warns(UserWarning, match="has no locks"), locked(tmp_path / "run", "--workdir"):
        pass


def test_unfinished_files_of_others_are_removed(tmp_path):
    for name in (".a.csv.1.part", "train.npy.part", "a.part"):
        (tmp_path / name).write_text("")
    remove_partials(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a.part", "train.npy.part"]


def test_names_of_clusters_of_another_run(tmp_path):
    path = runs.workdir_of("dxmc", tmp_path / "run")
    for content in ([], [{}], [{"names": "text"}] * runs.CLUSTERS, [1] * runs.CLUSTERS):
        write_json(path / "clusters.json", content)
        if content:
            with pytest.raises(UserError, match="does not name"):
                Predictor.restore(path)
        else:
            assert Predictor.restore(path).names == []
