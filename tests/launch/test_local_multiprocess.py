"""Tests local_multiprocess.py with small child processes."""

import os
import re
import signal
import sys
import time

import pytest

from tests.launch.shell import LAUNCH, call, environment, start

LAUNCHER = (sys.executable, LAUNCH / "local_multiprocess.py")
# A child first reads its flags.
FLAGS = """
import os, signal, sys, time
flags = dict(a[2:].split("=") for a in sys.argv[1:])
me = int(flags["process_id"])
"""


def children(code, *options, number=3, **kwargs):
    return call(*LAUNCHER, f"--num_processes={number}", *options, "--", sys.executable, "-c", FLAGS + code, **kwargs)


def started(code, *options, number=3):
    """Starts the launcher, and waits until all children have printed "ready"."""
    code = FLAGS + code
    process = start(*LAUNCHER, f"--num_processes={number}", *options, "--", sys.executable, "-c", code)
    lines = sorted(process.stdout.readline() for _ in range(number))
    assert lines == [f"[{i}] ready\n" for i in range(number)]
    return process


WAITS = "print('ready', flush=True); time.sleep(60)"
SAVES = "signal.signal({0}, lambda *_: sys.exit(75)); print('ready', flush=True); time.sleep(60)"


def test_process_numbers_are_passed():
    done = children("print(*(f'{k}={v}' for k, v in flags.items()))")
    assert (done.returncode, done.stderr) == (0, "")
    lines = sorted(done.stdout.splitlines())
    (port,) = {re.search(r"coordinator=localhost:(\d+)", line)[1] for line in lines}
    expected = [f"[{i}] coordinator=localhost:{port} num_processes=3 process_id={i}" for i in range(3)]
    assert lines == expected and 1024 <= int(port) < 65536


def test_the_port_can_be_given():
    assert "localhost:12355" in children("print(flags['coordinator'])", "--port=12355", number=1).stdout


@pytest.mark.parametrize("options, seen", [((), "None None"), (("--devices=4",), "4 cpu")])
def test_devices_of_a_process(options, seen):
    code = "print(os.environ.get('JAX_NUM_CPU_DEVICES'), os.environ.get('JAX_PLATFORMS'))"
    plain = {name: value for name, value in environment().items() if not name.startswith("JAX_")}
    assert sorted(children(code, *options, number=2, env=plain).stdout.splitlines()) == [f"[0] {seen}", f"[1] {seen}"]


def test_jax_finds_the_devices():
    code = "import jax; print(jax.local_device_count())"
    plain = {name: value for name, value in environment().items() if name != "XLA_FLAGS"}
    assert children(code, "--devices=3", number=1, env=plain).stdout == "[0] 3\n"


def test_lines_are_whole_and_start_with_the_process_number():
    code = """
for _ in range(50):
    print("out" * 2000)
    print("err" * 2000, file=sys.stderr)
print(end="end")
"""
    done = children(code)
    for text, word in ((done.stdout, "out"), (done.stderr, "err")):
        lines = [line for line in text.splitlines() if "end" not in line]
        assert sorted(lines) == sorted(f"[{i}] {word * 2000}" for i in range(3) for _ in range(50))
    assert sorted(line for line in done.stdout.splitlines() if "end" in line) == ["[0] end", "[1] end", "[2] end"]


@pytest.mark.parametrize("death, code", [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137), ("sys.exit(2)", 2)])
def test_one_failed_process_ends_the_others(death, code):
    before = time.monotonic()
    done = children(f"{death} if me == 1 else time.sleep(60)")
    assert done.returncode == code
    assert time.monotonic() - before < 10


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace():
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)\n"
    process = started(deaf + "time.sleep(0.5 if me == 0 else 60); sys.exit(5)", "--grace=0.3")
    process.communicate(timeout=20)
    assert process.returncode == 5


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_reaches_all_processes(name):
    process = started(SAVES.format(f"signal.{name}"))
    process.send_signal(signal.Signals[name])
    process.communicate(timeout=20)
    assert process.returncode == 75


@pytest.mark.parametrize(
    "codes, code", [((0, 0, 0), 0), ((75, 75, 75), 75), ((0, 3, 0), 3), ((75, 75, 0), 75), ((0, 0, 1), 1)]
)
def test_exit_codes(codes, code):
    assert children(f"sys.exit({codes}[me])").returncode == code


def test_the_first_exit_code_is_returned():
    assert children("time.sleep(me); sys.exit(10 + me)", number=2).returncode == 10


def test_after_one_process_has_saved_the_others_have_time_to_save():
    """One child ends with 75. The slower children get no signal within the grace period: a signal would kill them."""
    done = children("time.sleep(me * 0.4); print('saved'); sys.exit(75)")
    assert (done.returncode, done.stdout) == (75, "[0] saved\n[1] saved\n[2] saved\n")


def test_a_process_that_continues_after_75_gets_sigterm():
    process = started(WAITS.replace("60", "0.2 if me == 0 else 60") + "; sys.exit(75)", "--grace=0.3")
    process.communicate(timeout=20)
    assert process.returncode == 75


def test_no_process_is_left_behind():
    process = started("print(os.getpid(), file=sys.stderr, flush=True); " + WAITS)
    pids = [int(process.stderr.readline().split()[1]) for _ in range(3)]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
