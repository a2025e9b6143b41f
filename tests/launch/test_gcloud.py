"""Tests tpu_vm.sh and tpu_mig.sh with a stub of gcloud, whose workers are directories of this machine."""

import json
import sys

import pytest

from tests.launch.shell import LAUNCH, ROOT, call, calls, environment, stub, wait_for

# ssh runs the command in the home directories of the selected workers, and scp copies to them. Other commands answer
# from $ANSWERS, a file with the last words of a command and its answers, one per call.
GCLOUD = """
import json, os, pathlib, shutil, subprocess, sys
argv = sys.argv[1:]
homes = sorted(pathlib.Path(os.environ["WORKERS"]).iterdir())
flags = dict(a.split("=", 1) for a in argv if a.startswith("--") and "=" in a)
if flags.get("--worker", "all") != "all":
    homes = [homes[int(flags["--worker"])]]
verb = next((v for v in ("ssh", "scp") if v in argv), None)
if verb and "--worker" not in flags:  # an instance
    target = argv[argv.index(verb) + (verb == "scp") + 1].split(":")[0]
    homes = [h for h in homes if h.name == target]
for home in homes if verb else ():
    if verb == "ssh":
        code = subprocess.run(["bash", "-c", flags["--command"]], cwd=home).returncode
        if code:
            sys.exit(code)
    else:
        shutil.copy(argv[argv.index("scp") + 1], home / argv[argv.index("scp") + 2].split(":")[1])
if not verb:
    answers = pathlib.Path(os.environ["ANSWERS"])
    lines = json.loads(answers.read_text())
    for key, replies in lines.items():
        if key in argv and replies:
            print(replies.pop(0))
    answers.write_text(json.dumps(lines))
"""
# The interpreter of the environment: the program waits for SIGTERM, and every other command succeeds.
INTERPRETER = """
if [ "$1 $2" = "-m venv" ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
if [ "$1 $2" = "-m clustering_jax.main" ]; then
  trap 'echo saved; exit 75' TERM
  printf '<%s>' "$@" "$MEGASCALE_COORDINATOR_ADDRESS" "$MEGASCALE_NUM_SLICES" "$MEGASCALE_SLICE_ID"; echo
  while :; do sleep 0.05; done
fi
"""


@pytest.fixture
def cloud(tmp_path):
    """Returns the directory of two workers, and a function that calls a script with the stub."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "gcloud.py").write_text(GCLOUD)
    stub(bin_dir, "gcloud", f'exec "{sys.executable}" -S "{bin_dir}/gcloud.py" "$@"')
    stub(bin_dir, "sudo")
    stub(bin_dir, "curl", "printf %s one-0-b,one-0-a")
    stub(bin_dir, "python3.13", INTERPRETER)
    for worker in ("one-0-a", "one-0-b"):
        (tmp_path / "workers" / worker).mkdir(parents=True)
    (tmp_path / "answers").write_text("{}")
    variables = environment(bin_dir, WORKERS=str(tmp_path / "workers"), ANSWERS=str(tmp_path / "answers"))

    def script(name, *argv, answers=None):
        if answers is not None:
            (tmp_path / "answers").write_text(json.dumps(answers))
        return call("bash", LAUNCH / name, *argv, env=variables)

    yield tmp_path, script
    for worker in (tmp_path / "workers").rglob("worker.sh"):
        call("bash", worker, "stop")


def logs(here, remote_dir="clustering_jax"):
    files = [home / remote_dir / "run.log" for home in sorted((here / "workers").iterdir())]
    return [file.read_text() if file.exists() else "" for file in files]


def test_names_with_spaces_are_one_argument(cloud):
    here, script = cloud
    flags = ("--project=my project", "--zone=us east5-b", "--name=my tpu", "--accelerator-type=v6e 16")
    assert script("tpu_vm.sh", "create", *flags, "--runtime-version=v 2", "--", "--description=of mine").returncode == 0
    assert script("tpu_vm.sh", "delete", *flags).returncode == 0
    place = ["--project=my project", "--zone=us east5-b"]
    queue = ["compute", "tpus", "queued-resources"]
    kind = ["--accelerator-type=v6e 16", "--runtime-version=v 2", "--description=of mine"]
    assert calls(here / "bin", "gcloud") == [
        [*queue, "create", "my tpu", *place, "--node-id=my tpu", *kind],
        [*queue, "delete", "my tpu", *place, "--force", "--quiet"],
    ]


def test_mig_names_with_spaces_are_one_argument(cloud):
    here, script = cloud
    flags = ("--project=my project", "--zone=us east5-b", "--name=my tpu")
    assert script("tpu_mig.sh", "delete", *flags).returncode == 0
    assert calls(here / "bin", "gcloud")[0] == [
        *("compute", "instance-groups", "managed", "delete", "my tpu-0"),
        *("--project=my project", "--zone=us east5-b", "--quiet"),
    ]


def test_wait_returns_when_the_slice_is_active(cloud):
    _, script = cloud
    answers = {"describe": ["WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]}
    done = script("tpu_vm.sh", "wait", "--name=one", "--every=0.01", answers=answers)
    assert (done.returncode, done.stdout) == (0, "WAITING_FOR_RESOURCES\nPROVISIONING\nACTIVE\n")


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED"])
def test_wait_fails_if_the_slice_failed(cloud, state):
    _, script = cloud
    done = script("tpu_vm.sh", "wait", "--name=one", "--every=0.01", answers={"describe": ["PROVISIONING", state]})
    assert done.returncode == 2
    assert done.stderr == f"error: 'one' is {state}; delete it and create it again\n"


def test_a_script_ends_with_the_exit_code_of_a_failing_gcloud(cloud):
    here, script = cloud
    stub(here / "bin", "gcloud", "exit 7")
    assert script("tpu_vm.sh", "setup", "--name=one").returncode == 7
    assert len(calls(here / "bin", "gcloud")) == 1  # no command runs on workers without files
    mig = ("--name=one", "--zone=z-a", "--project=p")
    for verb in ("setup", "stop", "status"):
        assert script("tpu_mig.sh", verb, *mig).returncode == 7


TPU_VM = ("tpu_vm.sh", ("--name=one",))
TPU_MIG = ("tpu_mig.sh", ("--name=one", "--zone=z-a", "--project=p"))


@pytest.mark.parametrize("name, flags", [TPU_VM, TPU_MIG])
@pytest.mark.parametrize("remote_dir", ["clustering_jax", "my runs"])
@pytest.mark.long
def test_from_setup_to_stop(cloud, name, flags, remote_dir):
    here, script = cloud
    listing = {"list-instances": ["one-0-a\none-0-b"] * 9}
    flags = (*flags, f"--remote-dir={remote_dir}")
    done = script(name, "setup", *flags, answers=listing)
    assert done.returncode == 0, done.stderr
    for home in (here / "workers").iterdir():
        assert (home / remote_dir / "clustering_jax" / "main.py").read_bytes() == (
            ROOT / "clustering_jax" / "main.py"
        ).read_bytes()
        assert not list(home.rglob("__pycache__"))
    config, workdir = "--config=configs/my own.py", "--workdir=gs://bucket/it's"
    done = script(name, "run", *flags, config, workdir, "--", "--config.data.path=a b")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: all(logs(here, remote_dir)), "the runs")
    arguments = ("-m", "clustering_jax.main", "--distributed=auto", config, workdir, "--config.data.path=a b")
    expected = "".join(f"<{a}>" for a in arguments) + "<><><>\n"
    assert logs(here, remote_dir) == [expected] * 2
    assert script(name, "logs", *flags).stdout == expected
    assert script(name, "stop", *flags).returncode == 0
    assert all("saved\n" in log for log in logs(here, remote_dir))
    again = script(name, "stop", *flags)  # an error of a worker is shown
    assert again.returncode == 2 and "error: no run is going on here\n" in again.stderr


def test_slices_of_groups_get_the_address_of_the_coordinator(cloud):
    here, script = cloud
    for worker in ("one-1-a", "one-1-b"):
        (here / "workers" / worker).mkdir()
    flags = (*TPU_MIG[1], "--slices=2")
    first, second = "one-0-a\none-0-b", "one-1-a\none-1-b"
    done = script("tpu_mig.sh", "setup", *flags, answers={"list-instances": [first, second]})
    assert done.returncode == 0, done.stderr
    answers = {"list-instances": [first, first, second]}
    assert script("tpu_mig.sh", "run", *flags, "--config=c", "--workdir=w", answers=answers).returncode == 0
    wait_for(lambda: all(logs(here)), "the runs")
    ends = [log.strip().split("--workdir=w>")[1] for log in logs(here)]
    # The metadata of the first machine name one-0-b as worker 0.
    assert ends == ["<one-0-b><2><0>"] * 2 + ["<one-0-b><2><1>"] * 2


def test_groups_without_machines_are_an_error(cloud):
    _, script = cloud
    done = script("tpu_mig.sh", "setup", *TPU_MIG[1], answers={})
    assert done.returncode == 2 and "error: 'one-0' has no machines yet" in done.stderr


def test_setup_leaves_no_archive_behind(cloud, monkeypatch):
    here, _ = cloud
    (here / "temporary files").mkdir()
    monkeypatch.setenv("TMPDIR", str(here / "temporary files"))
    call(
        "bash",
        LAUNCH / "tpu_vm.sh",
        "setup",
        "--name=one",
        env=environment(here / "bin", WORKERS=str(here / "workers")),
    )
    assert calls(here / "bin", "gcloud") and not list((here / "temporary files").iterdir())
