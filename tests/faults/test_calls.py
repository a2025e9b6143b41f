"""Kills and errors at system calls that change files: the same command again ends with the same files.

`calls.c` counts the calls below one directory and interferes at one of them. It needs a C compiler.
"""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clustering_jax.files import read_json
from tests.faults.campaign import COUNT, KILL, TORN
from tests.test_run import checksums, environment

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")]
# What happens, and whether it lasts: a full disk stays full.
ACTIONS = {
    "a kill": (KILL, False),
    "a kill in the middle of a write": (TORN, False),
    "a full disk": (errno.ENOSPC, True),
    "a broken device": (errno.EIO, False),
}
# Calls of each operation at which each action is tried.
TRIES = int(os.environ.get("FAULT_TRIES", 3))


class Campaign:
    """The process that runs the operations."""

    def __init__(self, base):
        self.base, library = base, base / "calls.so"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", library, Path(__file__).with_name("calls.c"), "-ldl"], check=True
        )
        more = {"LD_PRELOAD": str(library), "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.campaign", str(base)],
            env={**environment(), **more, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout.readline() == "ready\n"

    def __call__(self, operation, root, call=0, action=COUNT, lasting=False):
        root.mkdir(exist_ok=True)
        job = {"operation": operation, "root": str(root), "call": call, "action": action, "lasting": lasting}
        print(json.dumps(job), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait(60)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    found = Campaign(tmp_path_factory.mktemp("campaign"))
    done = found("train", found.base)
    assert done["code"] == 0, done["err"]
    yield found
    found.close()


def _trained(run):
    result = read_json(run / "result.json")
    kept = {name: result[name] for name in ("scores", "seed", "protocol", "files")}
    names = (run / "clusters.json").read_text() if (run / "clusters.json").exists() else ""
    assert (run / "report.html").is_file()
    return checksums(run), (run / "assignments.csv").read_bytes(), json.dumps(kept), names


def _files(directory, *names):
    return [(directory / name).read_bytes() for name in names]


# What an operation leaves, by which two runs of it are compared.
WRITTEN = {
    "train": lambda root: _trained(root / "run"),
    "dxmc": lambda root: _trained(root / "run"),
    "embed": lambda root: _files(root / "embedded", "train.npy", "train.ids.json", "nouns.npy", "nouns.txt"),
    "predict": lambda root: _files(root, "out.csv"),
    "choose-k": lambda root: _files(root / "k", "choose_k.json"),
    "export": lambda root: _files(root / "model", "params.npz", "preprocessing.json", "model.json"),
    "edit": lambda root: [
        checksums(root / "edited"),
        _files(root / "edited", "assignments.csv", "clusters.json", "edits.json"),
    ],
    "save": lambda root: [checksums(root / "saved"), _files(root / "saved", "assignments.csv", "estimator.json")],
}


# Operations that write over nothing: after a kill at the last calls the directory is there already, and complete.
ONCE = {"export": "not an empty directory", "edit": "is there already", "save": "is there already"}


def assert_one_line(done):
    """Exit code 0, or 2 and one line. Warnings are no error."""
    lines = [line for line in done["err"].splitlines() if not line.startswith("warning: ")]
    assert done["code"] in (0, 2) and len(lines) == (done["code"] == 2), done["err"][-3000:]
    assert all(line.startswith("error: ") for line in lines)


@pytest.mark.parametrize("operation", WRITTEN)
def test_the_same_command_goes_on(campaign, tmp_path, operation):
    done = campaign(operation, tmp_path / "whole")
    assert done["code"] == 0, done["err"]
    expected, numbers = WRITTEN[operation](tmp_path / "whole"), random.Random(f"{operation}{TRIES}")
    for name, (action, lasting) in ACTIONS.items():
        for call in sorted(numbers.sample(range(1, done["calls"] + 1), min(TRIES, done["calls"]))):
            root, where = tmp_path / f"{action}-{call}", f"{operation}: {name} at call {call} of {done['calls']}"
            hurt = campaign(operation, root, call, action, lasting)
            print(where, hurt["code"], hurt["err"])
            if hurt["code"] != -9 or action > 0:
                assert_one_line(hurt)
            again = campaign(operation, root)
            complete = operation in ONCE and ONCE[operation] in again["err"]
            assert again["code"] == 0 or complete, f"{where}: {again['err'][-3000:]}"
            assert WRITTEN[operation](root) == expected, where
            shutil.rmtree(root)
