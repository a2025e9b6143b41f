"""Tests whole CMMC runs: files of the workdir, kills in every stage and between stages, errors."""

import json
import re
import signal

import pytest

from clustering_jax import run
from clustering_jax.errors import UserError
from tests.test_configs import load
from tests.test_run import ROOT, call, checksums, metrics, start, wait_for_step

# Each stage has three steps, one per epoch, with a checkpoint after each step.
TINY = [
    "--config=configs/cmmc_digits.py",
    "--config.model.hidden=(8,)",
    "--config.model.latent_dim=6",
    "--config.model.feature_dim=5",
    "--config.model.reconstruction_epochs=3",
    "--config.model.matching_steps=3",
    "--config.model.kmeans_restarts=2",
    "--config.batch_size=1024",
    "--config.epochs=3",
    "--config.run.log_every=1",
    "--config.run.checkpoint_every=1",
    "--config.kmeans_baseline=False",
]
STAGES = ["reconstruct"] * 3 + ["contrast"] * 3 + ["match"] * 3


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A complete run, and its output."""
    workdir = tmp_path_factory.mktemp("run") / "views"
    code, out, err = call("main", *TINY, f"--workdir={workdir}")
    assert code == 0, err
    return workdir, out


@pytest.mark.long
def test_the_workdir_has_the_documented_files(finished):
    workdir, out = finished
    result, lines = json.loads((workdir / "result.json").read_text()), metrics(workdir)
    assert result["method"] == "cmmc" and 0.1 < result["scores"]["acc"] <= 1 and "seeds" not in result
    assert "ACC" in out and "trained on digits_views" in out
    assert len((workdir / "assignments.csv").read_text().splitlines()) == 1798
    steps = [line for line in lines if "loss" in line]
    assert [(line["step"], line["phase"]) for line in steps] == list(enumerate(STAGES, start=1))
    terms = {
        "reconstruct": {"reconstruction"},
        "contrast": {"feature", "cluster", "imbalance", "reconstruction"},
        "match": {"matching"},
    }
    for line in steps:
        assert line["loss"] == pytest.approx(sum(line[name] for name in terms[line["phase"]]), rel=1e-5)


@pytest.mark.slow
def test_three_seeds_side_by_side_from_the_command_line(tmp_path):
    code, out, err = call("main", *TINY, "--config.num_seeds=3", f"--workdir={tmp_path / 'three'}")
    assert code == 0, err
    result = json.loads((tmp_path / "three" / "result.json").read_text())
    each = result["seeds"]["each"]
    assert [row["seed"] for row in each] == [0, 1, 2] and len({row["acc"] for row in each}) > 1
    kept = min(each, key=lambda row: row["criterion"])
    assert result["seed"] == kept["seed"] and result["scores"]["acc"] == kept["acc"]
    assert all(word in out for word in ("mean of 3", "std", "best by label"))


def killed_at(step, workdir):
    """Starts or resumes the run, kills it when `step` is logged, and returns the last logged step."""
    process = start("main", *TINY, f"--workdir={workdir}")
    wait_for_step(workdir, step, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was finished before"
    return metrics(workdir)[-1]["step"]


def assert_resumes(workdir, finished):
    code, _, err = call("main", *TINY, f"--workdir={workdir}")
    assert code == 0, err
    assert checksums(workdir) == checksums(finished)
    assert (workdir / "assignments.csv").read_text() == (finished / "assignments.csv").read_text()
    assert [line["step"] for line in metrics(workdir)] == [line["step"] for line in metrics(finished)]


@pytest.mark.long
def test_a_kill_before_the_pseudo_labels_ends_bitwise_equal(finished, tmp_path):
    killed_at(6, tmp_path / "killed")
    assert_resumes(tmp_path / "killed", finished[0])


@pytest.mark.slow
def test_kills_in_every_stage_and_between_stages_end_bitwise_equal(finished, tmp_path):
    """Steps 1, 4 and 7 are inside the stages. After steps 3 and 6 the next stage compiles, and k-means runs."""
    steps = [killed_at(step, tmp_path / "killed") for step in (1, 3, 4, 6, 7)]
    assert {STAGES[step - 1] for step in steps} == set(STAGES)
    assert_resumes(tmp_path / "killed", finished[0])


def config_of(name, changes):
    """A config with entries replaced, ``{"model.dtype": ...}``."""
    config = load(ROOT / "configs" / f"{name}.py")[1]
    config.update_from_flattened_dict(changes)
    return config.to_dict()


@pytest.mark.parametrize(
    "name, changes, words",
    [
        ("cc_digits", {"num_seeds": 2}, "convolutions don't train side by side on a CPU"),
        ("cmmc_digits", {"num_seeds": 0}, "at least 1 run"),
        ("cmmc_digits", {"num_clusters": 1800}, "between 2 and the number of examples, 1797"),
        ("cmmc_digits", {"model.dtype": "half"}, "choose float32 or bfloat16"),
        ("cmmc_digits", {"model.pseudo_labels_of": "labels"}, "choose features, views or held_out"),
        ("cmmc_digits", {"model.label_temperature": 0.0}, "model.label_temperature is 0.0: choose a number above 0"),
        ("cmmc_digits", {"model.chunk": -1}, "model.chunk is -1: choose 0 or more"),
        ("cmmc_digits", {"optimizer.schedule": "cosin"}, "cosine"),
        ("cmmc_digits", {"epochs": 0}, "nothing would be trained"),
        ("cmmc_digits", {"data.source": "digits_view"}, "digits_views"),
        ("cmmc_digits", {"init_from": "absent.pth"}, "absent.pth"),
        ("cmmc_digits", {"init_from": "tests/fixtures/cmmc.pth"}, "tests/fixtures/cmmc.pth does not fit"),
        ("cmmc_bdgp", {"data.path": "absent.mat"}, "absent.mat"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.long
def test_refusals_are_one_line_and_write_nothing(tmp_path, monkeypatch, name, changes, words):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        run.train(config_of(name, changes), tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
