"""Tests supervise.sh with a fake trainer that ends with given exit codes."""

import re
import signal
import sys

import pytest

from tests.launch.shell import LAUNCH, ROOT, call, environment, start

FAST = ("--first-delay=0.01", "--max-delay=0.04")
# The trainer removes the first code from the file CODES and ends with it. After "wait" it waits for SIGTERM or SIGINT,
# and ends with 75.
TRAINER = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
signal.signal(signal.SIGINT, lambda *_: sys.exit(75))
codes = pathlib.Path(sys.argv[1])
first, *rest = codes.read_text().split() or ["1"]
codes.write_text(" ".join(rest))
print("run with", *sys.argv[2:], flush=True)
# In short pieces, because Python handles a signal that comes just before a sleep at the end of that sleep.
for _ in range(1200 * (first == "wait")):
    time.sleep(0.05)
sys.exit(int(first))
"""


@pytest.fixture
def trainer(tmp_path):
    """Returns the command of a trainer for a list of codes."""

    def make(codes):
        (tmp_path / "trainer.py").write_text(TRAINER)
        (tmp_path / "codes").write_text(codes)
        return [sys.executable, tmp_path / "trainer.py", tmp_path / "codes", "an argument", "it's another"]

    return make


def supervise(*argv):
    return ["bash", LAUNCH / "supervise.sh", *argv]


@pytest.mark.parametrize(
    "codes, runs, code",
    [
        ("0", 1, 0),
        ("75 75 0", 3, 0),
        ("2", 1, 2),
        ("3", 1, 3),
        ("1 1 0", 3, 0),
        ("1 137 2", 3, 2),
        ("", 4, 1),  # always 1
        ("1 1 134 134", 4, 134),
        ("1 1 1 75 1 1 1 0", 8, 0),  # a save in between allows three more tries
    ],
)
def test_which_exit_codes_are_restarted(trainer, codes, runs, code):
    done = call(*supervise(*FAST, "--max-tries=4", "--", *trainer(codes)))
    assert done.returncode == code
    assert done.stdout == "run with an argument it's another\n" * runs


def test_the_delay_doubles_up_to_its_limit_and_is_reset_after_a_save(trainer):
    done = call(*supervise(*FAST, "--max-tries=5", "--", *trainer("1 1 1 1 75 1 0")))
    assert re.findall(r"again in (\S+) s", done.stderr) == ["0.01", "0.02", "0.04", "0.04", "0.01"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_reaches_the_command_and_its_exit_code_is_returned(trainer, name):
    process = start(*supervise(*FAST, "--", *trainer("75 wait 0")))
    for _ in range(2):
        assert process.stdout.readline() == "run with an argument it's another\n"
    process.send_signal(signal.Signals[name])
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (75, "")  # and the command is not started a third time
    assert err.endswith("exit code 75, stopped by a signal\n")


def test_sigint_is_not_ignored_by_a_command_without_a_handler(tmp_path):
    """The program has no handler at its start. A shell without job control would start it with SIGINT ignored."""
    process = start(*supervise("--", "bash", "-c", "echo ready; exec sleep 60"))
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


def test_signals_at_any_moment_end_the_script(trainer):
    """Signals are sent at many moments after the start. None may be lost, and none may leave a command behind."""
    for delay in range(8):
        process = start(*supervise(*FAST, "--", *trainer("wait")))
        try:
            process.wait(timeout=delay * 0.02)
        except Exception:
            process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
        # SIGTERM kills the trainer before it has its handler (143), or the shell before it has its trap (-15).
        assert process.returncode in (75, 143, -15), out


def test_a_command_that_saves_slowly_is_waited_for(trainer, tmp_path):
    slow = "trap 'sleep 0.6; echo saved; exit 75' TERM; echo ready; while :; do sleep 0.05; done"
    process = start(*supervise("--", "bash", "-c", slow))
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (75, "saved\n")


def test_a_signal_between_two_tries_ends_the_script(trainer):
    process = start(*supervise("--first-delay=60", "--", *trainer("1 0")))
    assert "again in 60 s" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out.count("run with")) == (75, 1)


def test_the_program_itself_is_run(tmp_path):
    """The real command ends with code 2 because of an error. It is not restarted."""
    program = [sys.executable, "-m", "clustering_jax.main", "--workdir", tmp_path / "run"]
    done = call(*supervise(*FAST, "--", *program), cwd=ROOT, env=environment())
    assert done.returncode == 2
    assert done.stderr.count("error: --config is missing") == 1


def test_input_goes_to_the_command():
    process = start(*supervise("--", "cat"), stdin=-1)
    assert process.communicate("a line\n", timeout=20)[0] == "a line\n"
