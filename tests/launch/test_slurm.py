"""Tests slurm.sbatch with stubs of SLURM's commands."""

import re
import signal

import pytest

from tests.launch.shell import LAUNCH, call, calls, environment, start, stub, wait_for

# The tasks of srun end with the code in TASKS, or with 75 after a signal of scancel (the file SIGNALLED). srun itself
# kills them when it gets SIGTERM.
SRUN = """
trap 'exit 137' TERM
echo started
code=$(cat "$HOME/tasks")
while [ "$code" = wait ] && [ ! -e "$HOME/signalled" ]; do sleep 0.02; done
[ "$code" = wait ] && { echo saved; exit 75; }
exit "$code"
"""


@pytest.fixture
def slurm(tmp_path):
    """Returns the environment of a job. The file `tasks` controls its tasks, and the file `state` has its state."""
    stub(tmp_path / "bin", "srun", SRUN)
    stub(tmp_path / "bin", "scancel", 'touch "$HOME/signalled"')
    stub(tmp_path / "bin", "squeue", 'cat "$HOME/state"')
    stub(tmp_path / "bin", "scontrol")
    (tmp_path / "state").write_text("RUNNING\n")
    variables = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "2", "HOME": str(tmp_path)}
    return tmp_path, environment(tmp_path / "bin", **variables)


JOB = ("bash", LAUNCH / "slurm.sbatch", "--config=configs/my own.py", "--workdir=gs://bucket/it's", "--")


@pytest.mark.parametrize("code", [0, 1, 2, 3, 137])
def test_other_exit_codes_are_returned_and_not_requeued(slurm, code):
    here, variables = slurm
    (here / "tasks").write_text(str(code))
    done = call(*JOB, "--config.data.path=a b", env=variables)
    assert done.returncode == code
    (arguments,) = calls(here / "bin", "srun")
    program = arguments[arguments.index("-m") :]
    assert program == [
        *("-m", "clustering_jax.main", "--distributed=auto"),
        *("--config=configs/my own.py", "--workdir=gs://bucket/it's", "--config.data.path=a b"),
    ]
    assert not calls(here / "bin", "scontrol") and not calls(here / "bin", "scancel")


@pytest.mark.parametrize("state, requeued", [("RUNNING", True), ("COMPLETING", False)])
def test_code_75_is_requeued_unless_cancelled(slurm, state, requeued):
    here, variables = slurm
    (here / "tasks").write_text("75")
    (here / "state").write_text(state + "\n")
    assert call(*JOB, env=variables).returncode == 75
    assert calls(here / "bin", "scontrol") == ([["requeue", "4711"]] if requeued else [])


def test_sigterm_reaches_the_tasks_through_scancel(slurm):
    here, variables = slurm
    (here / "tasks").write_text("wait")
    process = start(*JOB, env=variables)
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (75, "saved\n")  # the script waits for the tasks and does not kill them
    assert calls(here / "bin", "scancel") == [["--signal=TERM", "4711"]]
    assert calls(here / "bin", "scontrol") == [["requeue", "4711"]]


def test_a_failing_scancel_does_not_end_the_script(slurm):
    here, variables = slurm
    stub(here / "bin", "scancel", "exit 1")
    (here / "tasks").write_text("wait")
    process = start(*JOB, env=variables)
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: calls(here / "bin", "scancel"), "scancel")
    assert process.poll() is None  # still waiting for the tasks
    (here / "signalled").touch()
    process.communicate(timeout=20)
    assert process.returncode == 75


def test_one_task_is_one_process_with_all_devices(slurm):
    here, variables = slurm
    (here / "tasks").write_text("0")
    call(*JOB, env=variables | {"SLURM_NTASKS": "1"})
    (arguments,) = calls(here / "bin", "srun")
    assert not any(a.startswith("--distributed") for a in arguments)


def test_directives_come_before_the_first_command():
    text = (LAUNCH / "slurm.sbatch").read_text()
    head = text[: re.search(r"^[^#\n]", text, re.MULTILINE).start()]
    directives = set(re.findall(r"^#SBATCH (\S+)", head, re.MULTILINE))
    assert {"--requeue", "--signal=B:TERM@120", "--open-mode=append"} <= directives
    assert text.count("#SBATCH --") == len(directives)
    assert not {
        d for d in directives if re.match("--(account|partition|time|nodes|gpus)", d)
    }  # these are left to the user
