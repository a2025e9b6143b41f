"""Functions for the tests of the launch scripts: they call scripts, and write stubs of the commands in them."""

import os
import shutil
import subprocess
import time

from tests.paths import ROOT

LAUNCH = ROOT / "launch"


def environment(bin_dir=None, **extra):
    """The environment of the tests without the settings of the scripts, with `bin_dir` first on PATH."""
    base = {name: value for name, value in os.environ.items() if not name.startswith(("CLUSTERING_", "SLURM_"))}
    return base | ({"PATH": f"{bin_dir}:{base['PATH']}"} if bin_dir else {}) | extra


def call(*argv, **options):
    """Runs a command to its end, within a minute."""
    options = {"cwd": ROOT, "env": environment()} | options
    return subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=60, **options)


def start(*argv, **options):
    """Starts a command whose output is read while it runs."""
    options = {"cwd": ROOT, "env": environment()} | options
    return subprocess.Popen(
        [str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def stub(bin_dir, name, body=""):
    """Writes a command `name` to `bin_dir`. It appends its arguments to NAME.calls, then runs `body` with bash."""
    bin_dir.mkdir(parents=True, exist_ok=True)
    record = f"""{{ printf '%s\\x1f' "$@"; printf '\\x1e'; }} >>'{bin_dir / name}.calls'"""
    (bin_dir / name).write_text(f"#!/bin/bash\n{record}\n{body}\n")
    (bin_dir / name).chmod(0o755)


def calls(bin_dir, name):
    """Returns the arguments of every call of a stub, in order."""
    file = bin_dir / f"{name}.calls"
    return [line.split("\x1f")[:-1] for line in file.read_text().split("\x1e")[:-1]] if file.exists() else []


def project(directory):
    """Creates a project that has only the launch scripts."""
    shutil.copytree(LAUNCH, directory / "launch")
    return directory


def wait_for(condition, what, seconds=20):
    """Waits until `condition()` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.02)
