"""Tests worker.sh with a fake program, and worker_setup.sh with a fake interpreter."""

import shutil

import pytest

from tests.launch.shell import call, calls, environment, project, stub, wait_for

PROGRAM = """
trap 'echo saved; exit 75' TERM
echo ready
while :; do sleep 0.05; done
"""
# `-m venv DIR` creates an environment whose interpreter is also a stub. Every other command succeeds.
INTERPRETER = """
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
fi
"""
START = ("start", "--config=configs/my own.py", "--workdir=runs/a b", "--distributed=auto", "--", "--config.x=it's")


@pytest.fixture
def here(tmp_path):
    """Returns a project whose program waits for SIGTERM, and a function that calls its worker.sh."""
    root = project(tmp_path / "my project")
    stub(root / ".venv" / "bin", "python", PROGRAM)
    yield root, lambda *argv: call("bash", root / "launch" / "worker.sh", *argv, cwd=tmp_path)
    call("bash", root / "launch" / "worker.sh", "stop")


def log(root):
    return (root / "run.log").read_text() if (root / "run.log").exists() else ""


def test_a_run_from_start_to_stop(here):
    root, worker = here
    assert (worker(*START).returncode, worker("logs").returncode) == (0, 0)
    wait_for(lambda: "ready" in log(root), "the program")
    (arguments,) = calls(root / ".venv" / "bin", "python")
    assert arguments == [
        *("-m", "clustering_jax.main", "--distributed=auto", "--config=configs/my own.py", "--workdir=runs/a b"),
        "--config.x=it's",
    ]
    second = worker(*START)
    assert second.returncode == 2 and second.stderr.startswith("error: a run is going on here")
    assert worker("stop").returncode == 0
    assert log(root).endswith(
        "saved\nsupervise: exit code 75, stopped by a signal\n"
    )  # the run has ended, and was not only signalled
    assert worker("logs").stdout == log(root)
    again = worker("stop")
    assert again.returncode == 2 and again.stderr == "error: no run is going on here\n"


def test_after_a_stop_the_same_command_resumes(here):
    root, worker = here
    for runs in (1, 2):
        assert worker(*START).returncode == 0
        wait_for(lambda: log(root).count("ready") == runs, "the program")  # noqa: B023
        assert worker("stop").returncode == 0


@pytest.fixture
def bare(tmp_path):
    """Returns a project without an environment, on a machine with the commands of the script but without Python."""
    root = project(tmp_path / "my project")
    for name in ("bash", "dirname", "awk", "sed", "mkdir", "cp", "env"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    stub(tmp_path / "bin", "sudo")
    variables = environment() | {"PATH": str(tmp_path / "bin")}
    return root, tmp_path / "bin", lambda *argv: call("bash", root / "launch" / "worker_setup.sh", *argv, env=variables)


def test_setup_with_a_recent_python(bare):
    root, bin_dir, setup = bare
    stub(bin_dir, "python3.11", INTERPRETER)
    for _ in range(2):  # a second call keeps the environment
        done = setup("--extra=cuda12")
        assert (done.returncode, done.stderr) == (0, "")
    modules = [
        a[1:] for a in calls(bin_dir, "python3.11") if a[0] == "-m"
    ]  # the interpreter of the environment is a copy of the stub
    install = ["pip", "install", "--quiet", "--constraint", f"{root}/constraints.txt", "--editable", f"{root}[cuda12]"]
    assert modules == [["venv", f"{root}/.venv"], install, install]


def test_setup_without_a_recent_python_uses_uv(bare):
    root, bin_dir, setup = bare
    stub(bin_dir, "python3", 'if [ "$1" = -c ]; then exit 1; fi')
    done = setup("--dry-run")
    assert (done.returncode, done.stdout.splitlines()[:2]) == (
        0,
        ["python3 -m pip install --quiet --user uv", f"python3 -m uv venv --seed --python=3.12 '{root}/.venv'"],
    )


def test_setup_installs_venv_if_the_system_lacks_it(bare):
    _, bin_dir, setup = bare
    stub(bin_dir, "python3", "case $2 in *ensurepip*) exit 1 ;; esac")
    done = setup("--dry-run")
    assert done.returncode == 0 and "sudo apt-get install --yes python3-venv\n" in done.stdout


def test_setup_refuses_an_old_interpreter(bare):
    _, bin_dir, setup = bare
    stub(bin_dir, "python3.9", 'if [ "$1" = -c ]; then exit 1; fi')
    done = setup("--python=python3.9")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --python=python3.9 does not run or is older than Python 3.11\n"


def test_without_root_huge_pages_are_unchanged(bare):
    _, bin_dir, setup = bare
    stub(bin_dir, "python3.12", INTERPRETER)
    stub(bin_dir, "sudo", "exit 1")
    done = setup()
    assert (done.returncode, done.stderr) == (0, "warning: transparent huge pages stay as they are\n")


def test_setup_stops_at_a_failed_installation(bare):
    _, bin_dir, setup = bare
    stub(bin_dir, "python3.12", INTERPRETER + 'if [ "$3" = install ]; then exit 9; fi')
    assert setup().returncode == 9
    assert not calls(bin_dir, "sudo")
