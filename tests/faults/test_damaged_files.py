"""Damaged inputs of every reader: the right values, or one line; never a traceback, a crash or other values."""

import subprocess
import sys

import numpy as np
import pytest

from tests.faults.mutations import damaged
from tests.faults.readers import READERS, N, Reader, faults_of
from tests.test_run import environment

# Readers that take long for each file are left to the slow part.
SLOW = ("a model", "clip", "dinov", "open_clip", "siglip")
QUICK = [name for name, reader in READERS.items() if not reader.crashes and not name.startswith(SLOW)]


@pytest.mark.parametrize("name", QUICK)
def test_damages_of_a_file(tmp_path, name):
    assert faults_of(name, range(10), tmp_path) == []


@pytest.mark.faults
@pytest.mark.parametrize("name", READERS)
def test_many_damages_of_a_file(name):
    """In a process with limits on memory and on the time for each file."""
    count = 100 if name.startswith(SLOW) else 500
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.faults.readers", name, "1000", str(count)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, errors="replace")
    faults = [line for line in done.stdout.splitlines() if line.startswith("fault: ")]
    assert not faults
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stdout[-100:] + done.stderr[-3000:]


def test_the_harness_sees_faults(tmp_path, monkeypatch):
    """A reader without care for damages, and one that gives other values for a flipped bit."""
    careless = Reader(lambda d: np.save(d / "a.npy", np.zeros(N)), "a.npy", lambda d: {"a": np.load(d / "a.npy")})
    monkeypatch.setitem(READERS, "careless", careless)
    assert any("Error" in fault for fault in faults_of("careless", range(30), tmp_path))
    monkeypatch.setitem(READERS, "unchecked", careless._replace(checked=True, damages=(damaged,)))
    assert any("is another one" in fault for fault in faults_of("unchecked", range(30), tmp_path))
