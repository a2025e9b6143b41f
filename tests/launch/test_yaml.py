"""Tests jobset.yaml and skypilot.yaml, and their placeholders."""

import re
from string import Template

import pytest
import yaml

from tests.launch.shell import LAUNCH, call, calls, environment, project, stub

VALUES = {
    "CLUSTERING_NAME": "a-run",
    "CLUSTERING_IMAGE": "registry/image:1",
    "CLUSTERING_CONFIG": "configs/my own: 1.py",
    "CLUSTERING_WORKDIR": "gs://bucket/it's #1",
    "CLUSTERING_ACCELERATOR": "tpu-v6e-slice",
    "CLUSTERING_TOPOLOGY": "4x4",
    "CLUSTERING_HOSTS": "4",
    "CLUSTERING_CHIPS": "4",
    "CLUSTERING_SLICES": "2",
}


def jobset(values=None):
    text = (LAUNCH / "jobset.yaml").read_text()
    return yaml.safe_load(Template(text).substitute(values) if values else text)


@pytest.mark.parametrize("name", ["jobset.yaml", "skypilot.yaml"])
def test_the_files_are_valid_yaml(name):
    assert isinstance(yaml.safe_load((LAUNCH / name).read_text()), dict)


def test_every_placeholder_is_documented_and_every_documented_one_used():
    text = (LAUNCH / "jobset.yaml").read_text()
    documented = re.findall(r"^#   export (\w+)=", text, re.MULTILINE)
    assert sorted(documented) == sorted(set(re.findall(r"\$\{(\w+)\}", text))) == sorted(VALUES)


def test_jobset_with_values():
    filled = jobset(VALUES)
    assert (filled["apiVersion"], filled["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = filled["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert (job["replicas"], spec["parallelism"], spec["completions"]) == (2, 4, 4)
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] + container["args"] == [
        *("python", "-m", "clustering_jax.main", "--distributed=auto"),
        *("--config=configs/my own: 1.py", "--workdir=gs://bucket/it's #1"),
    ]
    assert container["resources"]["limits"] == container["resources"]["requests"] == {"google.com/tpu": 4}
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }


def action(spec, code=None, condition=None):
    """Returns the action of Kubernetes for a failed pod: the first matching rule of the policy."""
    for rule in spec["podFailurePolicy"]["rules"]:
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions", ())
        if codes and code is not None and (code in codes["values"]) == (codes["operator"] == "In"):
            assert codes["containerName"] == spec["template"]["spec"]["containers"][0]["name"]
            return rule["action"]
        if any(c["type"] == condition and c["status"] == "True" for c in conditions):
            return rule["action"]
    return None


def test_exit_codes_in_kubernetes():
    spec = jobset()["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert [action(spec, code) for code in (2, 3, 75, 1, 137)] == ["FailJob", "FailJob", "Ignore", None, None]
    assert action(spec, condition="DisruptionTarget") == "Ignore"
    # The policy needs pods that are not restarted in place. A crash fails the job, which restarts the whole set.
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert (spec["backoffLimit"], spec["completionMode"]) == (0, "Indexed")
    policy = jobset()["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    (rule,) = policy["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


def test_sky_requires_the_null_variables():
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert {name for name, value in task["envs"].items() if value is None} == {"CONFIG", "WORKDIR"}
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    assert "accelerators" not in task["resources"]


@pytest.mark.parametrize(
    "variables, distributed",
    [
        ({"EXTRA": "tpu", "SKYPILOT_NUM_NODES": "1"}, ["--distributed=auto"]),
        ({"EXTRA": "cuda12", "SKYPILOT_NUM_NODES": "1"}, []),
        (
            {
                "EXTRA": "cuda12",
                "SKYPILOT_NUM_NODES": "2",
                "SKYPILOT_NODE_RANK": "1",
                "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
            },
            ["--coordinator=10.0.0.1:8482", "--num_processes=2", "--process_id=1"],
        ),
    ],
)  # fmt: skip
def test_the_commands_that_sky_runs(tmp_path, variables, distributed):
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    here = project(tmp_path)
    stub(here / ".venv" / "bin", "python")
    given = {"CONFIG": "configs/my own.py", "WORKDIR": "gs://bucket/it's", "FLAGS": "--config.data.path='a b' --x=1"}
    done = call("bash", "-c", task["run"], cwd=here, env=environment(**given, **variables))
    assert (done.returncode, done.stderr) == (0, "")
    assert calls(here / ".venv" / "bin", "python") == [
        [
            *("-m", "clustering_jax.main", *distributed, "--config=configs/my own.py", "--workdir=gs://bucket/it's"),
            *("--config.data.path=a b", "--x=1"),
        ]
    ]
