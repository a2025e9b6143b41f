"""What a user can put right ends in one line, and a run that was stopped anywhere gets all its files."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
from PIL import Image

from clustering_jax import report, run
from clustering_jax.data.images.folder import folder, iter_folder
from clustering_jax.errors import UserError
from clustering_jax.estimators import ContrastiveClustering, CrossModalClustering, MultiViewClustering
from clustering_jax.files import write_json
from clustering_jax.settings.base import Run
from clustering_jax.settings.cc import CC
from clustering_jax.settings.cmmc import CMMC
from clustering_jax.settings.validate import settings_of
from clustering_jax.training import seeds
from clustering_jax.training.workdir import finished
from tests import runs
from tests.faults.test_identity import config
from tests.training.test_distributed import METHODS, ended, start


@pytest.mark.parametrize("name", ["log_every", "evaluate_every", "checkpoint_every", "keep", "resident_gib"])
def test_periods_below_0(name):
    settings = {"seed": 0, "num_seeds": 1, "run": Run()._asdict()}
    seeds.check_numbers(settings)
    with pytest.raises(UserError, match=f"run.{name} is -1"):
        seeds.check_numbers({**settings, "run": {**settings["run"], name: -1}})


@pytest.mark.parametrize("seed, num_seeds", [(2**32, 1), (2**63, 1), (2**32 - 2, 3)])
def test_seeds_that_would_share_their_keys(tmp_path, seed, num_seeds):
    with pytest.raises(UserError, match=r"less than 2\^32"):
        run.train(config("none.npz", seed=seed, num_seeds=num_seeds), tmp_path / "run")
    seeds.check_numbers({"seed": 2**32 - num_seeds, "num_seeds": num_seeds})


def test_estimators_of_another_kind(tmp_path):
    write_json(tmp_path / "estimator.json", {"params": {"n_clusters": 3, "reconstruction_epochs": 1}, "seen": {}})
    with pytest.raises(UserError, match="another estimator than CrossModalClustering"):
        CrossModalClustering.load(tmp_path)
    for content in ({"params": 3}, {"params": {"x": 1}}):
        write_json(tmp_path / "estimator.json", content)
        with pytest.raises(UserError, match="another estimator"):
            MultiViewClustering.load(tmp_path)


def test_arguments_that_mean_nothing():
    with pytest.raises(UserError, match="n_clusters is None"):
        MultiViewClustering(None).fit([np.eye(5), np.eye(5)])
    with pytest.raises(UserError, match="X is sparse"):
        ContrastiveClustering().fit(scipy.sparse.eye_array(5))


@pytest.fixture
def photos(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (9, 9), (40 * i, 5, 5)).save(tmp_path / "in" / name / f"{i}.png")
    return tmp_path / "in"


def test_a_subfolder_without_permission(photos, monkeypatch):
    real = os.scandir

    def scandir(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"in/b can't be read .Permission denied.*set on_error to skip"):
        folder(photos, size=8)
    found = folder(photos, size=8, on_error="skip")
    assert found.ids == ["a/0.png", "a/1.png", "a/2.png"] and any("skipped 1 folders" in note for note in found.notes)


def test_what_is_skipped_is_said(photos):
    (photos / "a" / "1.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"skipped 1 unreadable.*1\.png is not an image"):
        parts = list(iter_folder(photos, 8, 2, on_error="skip"))
    assert [name for ids, _ in parts for name in ids] == ["a/0.png", "a/2.png", "b/0.png", "b/1.png", "b/2.png"]
    for path in photos.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.warns(UserWarning, match="skipped"):
        assert list(iter_folder(photos, 8, 2, on_error="skip")) == []


@pytest.fixture
def done(tmp_path):
    """The files of a finished run."""
    workdir = runs.workdir_of("dmim", tmp_path / "run")
    settings = runs.config_of("dmim")
    write_json(workdir / "config.json", settings)
    scores = {"occupied": 5, "smallest": 1, "largest": 9, "confidence": 0.5, "entropy": 1.0}
    protocol = dict.fromkeys(("trained_on", "scored_on", "labels", "scored_at"), "none")
    result = {"method": "dmim", "scores": scores, "baselines": [], "protocol": protocol, "seed": 0}
    write_json(workdir / "result.json", {**result, "versions": {}, "wall_time_seconds": 1.0})
    return workdir, json.loads(json.dumps(settings))


def test_a_run_stopped_before_its_report_gets_it(done, capsys):
    workdir, settings = done
    assert run.train(settings, workdir) == finished(workdir)
    assert (workdir / "report.html").is_file() and "is finished" in capsys.readouterr().out
    (workdir / "report.html").write_text("mine")
    run.train(settings, workdir)
    assert (workdir / "report.html").read_text() == "mine"


def test_a_report_that_can_not_be_made_loses_no_result(done, monkeypatch):
    workdir, settings = done
    monkeypatch.setattr(report, "write", lambda _: 1 / 0)
    with pytest.warns(UserWarning, match="the report was not written"):
        assert run.train(settings, workdir)["scores"]["occupied"] == 5


def test_a_finished_run_needs_no_lock(done, monkeypatch):
    """It may be read where nothing can be written."""
    workdir, settings = done
    monkeypatch.setattr("clustering_jax.run.training.locked", lambda *_: pytest.fail("locked"))
    assert run.train(settings, workdir, reported=False)["seed"] == 0
    shutil.rmtree(workdir)


def test_messages_quote_any_name(tmp_path):
    """A file name that is not UTF-8 ended in a traceback where it was printed."""
    code = "import os; from clustering_jax import cli; cli.run(lambda: print('read', os.fsdecode(b'caf\\xe9.png')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert done.returncode == 0 and done.stdout == b"read caf\\udce9.png\n", done.stderr


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--config.optimizer.learning_rate=0.5", "--config.epochs=7"])
def test_processes_that_disagree_stop_before_the_first_step(tmp_path, flag):
    codes, _, errs = ended(start(tmp_path, METHODS["dmim"], last=[flag]))
    assert codes == [2, 2], errs
    assert all("the processes of this run disagree" in err for err in errs)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    "kind, values",
    [
        (CC, {"image_size": 0}),
        (CC, {"image_size": -1}),
        (CC, {"width": 0}),
        (CC, {"width": -4}),
        (CMMC, {"hidden": "abc"}),
        (CMMC, {"hidden": (0,)}),
        (CMMC, {"latent_dim": "8"}),
    ],
)
def test_settings_of_a_model_that_can_not_be(kind, values):
    with pytest.raises(UserError, match=f"^model.{next(iter(values))} is .*: choose"):
        settings_of(kind, values, "method", group="model")
