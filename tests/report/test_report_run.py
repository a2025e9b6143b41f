"""Tests the report at the end of a run and by the command, for finished and unfinished runs and missing data."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest

from clustering_jax import data, report, run
from clustering_jax.errors import UserError
from clustering_jax.files import read_json, write_json
from clustering_jax.training.signals import Interrupted
from tests.test_run import call
from tests.test_run_scored import config, write
from tests.training.test_loop import interrupt_at


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The file, the workdir and the output of a run of two seeds that trains on one split and scores another."""
    directory, printed = tmp_path_factory.mktemp("report"), io.StringIO()
    path = write(directory / "emb.npz")
    with contextlib.redirect_stdout(printed):
        run.train(config(path, num_seeds=2, epochs=10), directory / "run")
    return path, directory / "run", printed.getvalue()


@pytest.mark.long
def test_a_run_ends_with_its_report(finished):
    _, workdir, out = finished
    text = (workdir / "report.html").read_text()
    assert out.splitlines()[-1] == f"report: {workdir}/report.html"
    result = json.loads((workdir / "result.json").read_text())
    assert f"<b>{result['scores']['acc']:.3f}</b>" in text and "mean ± std of 2 seeds" in text
    assert "PCA of the embedding of all 80 rows" in text and "Silhouette, mean" in text
    assert all(word in text for names in result["names"] for word in names)


@pytest.mark.long
def test_the_command_writes_the_same_report_again(finished, tmp_path):
    workdir = tmp_path / finished[1].name
    shutil.copytree(finished[1], workdir)
    before = (workdir / "report.html").read_text()
    (workdir / "report.html").unlink()
    code, out, err = call("report", f"--workdir={workdir}")
    assert code == 0, err
    assert out == f"{workdir}/report.html written\n"
    # The coordinates of the map differ, because the command has other devices and compiler options than this process.
    assert parts(before) == parts((workdir / "report.html").read_text())


def parts(text):
    """Everything except the drawings."""
    return [piece.partition("</svg>")[2] for piece in text.split("<svg")]


@pytest.mark.long
def test_missing_or_changed_data_is_reported(finished, tmp_path):
    path, workdir = finished[0], tmp_path / "run"
    shutil.copytree(finished[1], workdir)
    kept = path.rename(tmp_path / "kept.npz")
    try:
        text = report.write(workdir).read_text()
        assert "Left out:" in text and "emb.npz" in text and "does not exist" in text
        assert "Map of the embedding" not in text and "Cluster sizes" in text
        np.savez(path, **{**np.load(kept), "train": np.arange(240) % 2})
        assert "the data has 120 rows now, the run had 80" in report.write(workdir).read_text()
        arrays = dict(np.load(kept))
        np.savez(path, **{**arrays, **{k: arrays[k][:, :5] for k in ("image", "nouns")}})
        assert "image of shape (5,) now, the run had (12,)" in report.write(workdir).read_text()
    finally:
        kept.replace(path)
    lines = (workdir / "assignments.csv").read_text().replace("\n3,", "\nthree,", 1)
    (workdir / "assignments.csv").write_text(lines)
    text = report.write(workdir).read_text()
    assert "the data has ids that differ" in text and "Map of the embedding" not in text


@pytest.mark.slow
def test_another_map_by_the_command(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[1], workdir)
    code, _, err = call("report", f"--workdir={workdir}", "--map=tsne")
    assert code == 0 and "t-SNE of the embedding" in (workdir / "report.html").read_text(), err
    code, _, err = call("report", f"--workdir={workdir}", "--map=tsn")
    assert code == 2 and err.startswith("error: --map=tsn is unknown") and len(err.splitlines()) == 1


@pytest.mark.long
def test_the_report_of_an_unfinished_run_says_so(tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    interrupt_at(50, monkeypatch)
    with pytest.raises(Interrupted), contextlib.redirect_stdout(io.StringIO()):
        run.train(config(write(tmp_path / "emb.npz")), workdir)
    text = report.write(workdir).read_text()
    assert "has not finished" in text and "newest checkpoint" in text and "Map of the embedding" in text
    shutil.rmtree(workdir / "checkpoints")
    text = report.write(workdir).read_text()
    assert "holds no checkpoints" in text and "Over time" in text and "<h2>Scores" not in text


@pytest.mark.long
def test_a_report_that_fails_is_a_warning_and_leaves_no_file(finished, tmp_path, monkeypatch):
    """`run.train` writes result.json before it calls `at_end`."""
    settings = json.loads((finished[1] / "config.json").read_text())
    scored = data.load(**settings["scored"])
    monkeypatch.setattr(report, "page", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match="the report was not written \\(division by zero\\)"):
        report.at_end(finished[1], settings, scored, lambda features: features["image"])
    shutil.copytree(finished[1], tmp_path / "run", ignore=shutil.ignore_patterns("report.html"))
    with pytest.warns(UserWarning, match="division by zero"):
        report.at_end(tmp_path / "run", settings, scored, lambda features: features["image"])
    assert not list((tmp_path / "run").glob("*report*"))


@pytest.mark.long
def test_a_report_that_cannot_be_written(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[1], workdir, ignore=shutil.ignore_patterns("report.html"))
    (workdir / "report.html").mkdir()
    with pytest.raises(UserError, match="can't be written"):
        report.write(workdir)
    assert not list(workdir.glob(".*part"))


@pytest.mark.long
def test_a_chosen_number_of_clusters_is_shown_without_checkpoints(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[1], workdir, ignore=shutil.ignore_patterns("checkpoints"))
    given = read_json(workdir / "config.json")
    write_json(workdir / "config.json", {**given, "num_clusters": 0})
    (workdir / "num_clusters.json").write_text(
        json.dumps({"num_clusters": given["num_clusters"], "criterion": "c", "curve": [[2, 0.1], [4, 0.3]]})
    )
    text = report.write(workdir).read_text()
    assert "holds no checkpoints" in text and f"of {given['num_clusters']} clusters are occupied" in text


def test_a_directory_without_a_run_is_refused(tmp_path):
    for workdir in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="holds no run"):
            report.write(workdir)
    assert not list(tmp_path.iterdir())
