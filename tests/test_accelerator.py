"""Runs `benchmarks.accelerator` at toy size on the CPU: parts run and resume, and a table is written."""

import json
import subprocess
import sys

import pytest

from benchmarks.accelerator.__main__ import LIMITS, finished, table
from benchmarks.accelerator.parts import Context, cifar
from tests.paths import ROOT


def test_finished_parts_are_not_run_again(tmp_path):
    lines = [{"part": "a", "x": 1.5}, {"part": "b", "y": 2}, {"part": "a", "end": True}]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert finished(tmp_path) == {"a"}
    assert table(tmp_path).splitlines()[2:] == ["| a | x 1.5 |", "| b | y 2 |"]


@pytest.mark.long
def test_losses_are_right_on_this_device(tmp_path):
    from benchmarks.accelerator import correctness

    correctness.check_losses(Context("correctness", tmp_path, *cifar("", True), True))
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert all(line["value_error"] < 1e-5 and line["gradient_error"] < 1e-4 for line in lines)


def test_unknown_part_is_refused(tmp_path):
    command = [sys.executable, "-m", "benchmarks.accelerator", f"--output={tmp_path}", "--parts=cc_r19"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and "cc_r19" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("part", [part for part in LIMITS if not part.startswith("torch")])
def test_every_part_runs_at_toy_size(part, tmp_path):
    command = [sys.executable, "-m", "benchmarks.accelerator", f"--output={tmp_path}", "--toy", f"--parts={part}"]
    subprocess.run(command, cwd=ROOT, check=True)
    assert finished(tmp_path) == {part}
