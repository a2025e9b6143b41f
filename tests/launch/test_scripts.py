"""Tests all scripts: shellcheck, --help, errors, and the commands that --dry-run prints."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from tests.launch.shell import LAUNCH, ROOT, call, environment, project, stub

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.txt"))
SCRIPTS = (
    "tpu_vm.sh",
    "tpu_mig.sh",
    "worker.sh",
    "worker_setup.sh",
    "supervise.sh",
    "slurm.sbatch",
    "local_multiprocess.py",
)


def command(script):
    return [sys.executable if script.endswith(".py") else "bash", f"launch/{script}"]


def transcript(file):
    """Reads a golden file: its commands ("$ ..."), each with the expected output."""
    parts = re.split(r"^\$ ", file.read_text(), flags=re.MULTILINE)[1:]
    return [part.split("\n", 1) for part in parts]


@pytest.mark.parametrize("file", GOLDEN, ids=lambda f: f.stem)
def test_dry_runs(tmp_path, file):
    here = project(tmp_path / "a project")
    stub(tmp_path / "bin", "python3.13")  # the interpreter that worker_setup.sh finds
    assert transcript(file)
    for line, expected in transcript(file):
        done = call("bash", "-c", line, cwd=here, env=environment(tmp_path / "bin"))
        assert (done.returncode, done.stderr) == (0, ""), line
        assert done.stdout.replace(str(here), "ROOT") == expected, line
    assert sorted(p.name for p in here.iterdir()) == ["launch"]  # and no file was written


@pytest.mark.slow
def test_gcloud_accepts_the_commands(tmp_path):
    """Checks the commands of all golden files with gcloud's own parser, which calls nothing."""
    if not shutil.which("gcloud"):
        pytest.skip("gcloud is absent")
    lines = {out for file in GOLDEN for _, text in transcript(file) for out in text.splitlines()}
    # Older versions of gcloud have this flag in alpha only.
    lines = [
        re.sub(r"^gcloud (?=.*--target-size-policy-mode)", "gcloud alpha ", x) for x in lines if x[:7] == "gcloud "
    ]
    (tmp_path / "commands.json").write_text(json.dumps([{"command_string": line} for line in lines]))
    done = call(
        *("gcloud", "meta", "lint-gcloud-commands", f"--commands-file={tmp_path / 'commands.json'}"),
        env=environment(CLOUDSDK_CONFIG=str(tmp_path), CLOUDSDK_CORE_DISABLE_PROMPTS="1"),
    )
    if done.returncode:
        pytest.skip(f"this gcloud can't check commands: {done.stderr}")
    verdicts = json.loads(done.stdout)
    assert len(verdicts) == len(lines) > 20
    assert not [(v["command_string"], v["error_message"]) for v in verdicts if not v["success"]]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script):
    done = call(*command(script), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    text = (LAUNCH / script).read_text()
    options = set(
        re.findall(r"^ +(--[a-z-]+)(?:=\*)?\) ", text, re.MULTILINE) + re.findall(r'argument\("(--[\w-]+)', text)
    )
    assert "--dry-run" in options and not {option for option in options if option not in done.stdout}


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_unknown_option_is_refused_in_one_line(script):
    done = call(*command(script), "--colour=blue")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .*--colour=blue.*--help\n", done.stderr)


@pytest.mark.parametrize(
    "line, says",
    [
        ("tpu_vm.sh create --accelerator-type=v6e-8 --runtime-version=v", "--name=NAME is missing"),
        ("tpu_vm.sh create --name=n", "create needs --accelerator-type"),
        ("tpu_vm.sh run --name=n --config=c", "run needs --config=FILE and --workdir=DIR"),
        ("tpu_vm.sh --name=n", "what to do?"),
        ("tpu_vm.sh setup run --name=n", "one thing at a time: setup or run"),
        ("tpu_vm.sh wait --name=n --slices=0", "--slices=0 is no whole number above 0"),
        ("tpu_mig.sh wait --name=n --zone=z", "--project=ID, --zone=ZONE or --name=NAME is missing"),
        ("tpu_mig.sh create --name=n --zone=z --project=p --hosts=4", "create needs --machine-type"),
        ("worker.sh start --config=c", "start needs --config=FILE and --workdir=DIR"),
        ("worker_setup.sh --extra=gpu", "--extra=gpu is none of tpu, cuda12, none"),
        ("supervise.sh", "no command"),
        ("supervise.sh --max-tries=0 true", "--max-tries=0 is no whole number above 0"),
        ("supervise.sh --first-delay=soon true", "a delay of 'soon' is no number of seconds"),
        ("slurm.sbatch --config=c", "--config=FILE or --workdir=DIR is missing"),
        ("local_multiprocess.py --num_processes=2", "no command"),
        ("local_multiprocess.py --num_processes=0 -- true", "--num_processes must be at least 1"),
        ("local_multiprocess.py -- ./absent", "the command does not start"),
    ],
)
def test_errors_of_the_user_are_one_line(line, says):
    script, *arguments = line.split()
    done = call(*command(script), *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and says in done.stderr and done.stderr.count("\n") == 1


def shell_parts(tmp_path):
    """Yields every shell script, and the scripts inside skypilot.yaml as files."""
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    for part in ("setup", "run"):
        (tmp_path / part).write_text("#!/bin/bash\n" + task[part])
        yield tmp_path / part
    yield from (path for path in sorted(LAUNCH.iterdir()) if path.suffix in (".sh", ".sbatch"))
    yield from sorted((ROOT / ".ci").iterdir())


def test_shellcheck(tmp_path):
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{environment()['PATH']}")
    if not shellcheck:
        pytest.skip("shellcheck is absent: pip install -e '.[test]'")
    done = call(shellcheck, "-x", "-P", LAUNCH, *shell_parts(tmp_path))
    assert done.returncode == 0, done.stdout


def test_scripts_can_be_started_and_stop_at_the_first_error():
    for path in LAUNCH.glob("*.sh"):
        if path.name != "common.sh":
            assert path.stat().st_mode & 0o111, path.name
            assert "\nset -euo pipefail\n" in path.read_text(), path.name


def test_the_documented_commands_are_accepted(tmp_path):
    text = (ROOT / "docs" / "launch.md").read_text().replace("\\\n", " ")
    lines = re.findall(r"^(?:sbatch .*?|bash |python )?(launch/[a-z_]+\.(?:sh|sbatch|py)) (.*)$", text, re.MULTILINE)
    assert {script.removeprefix("launch/") for script, _ in lines} == set(SCRIPTS)
    here = project(tmp_path)
    place = {f"CLUSTERING_{name}": "a-b" for name in ("PROJECT", "ZONE", "NAME")}
    for script, arguments in lines:
        interpreter = sys.executable if script.endswith(".py") else "bash"
        done = call("bash", "-c", f"{interpreter} {script} --dry-run {arguments}", cwd=here, env=environment(**place))
        assert done.returncode == 0, (script, arguments, done.stderr)
