"""Corrections of a finished run: the new workdir, prediction from it, and the report."""

import csv
import shutil

import numpy as np
import pytest

from clustering_jax import edit as command
from clustering_jax import predict
from clustering_jax.editing import Request, edit
from clustering_jax.errors import UserError
from clustering_jax.estimators import FeatureClustering
from clustering_jax.files import read_json
from clustering_jax.inference.predictor import Predictor
from clustering_jax.serving import export
from tests.editing import small


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return small.trained(tmp_path_factory.mktemp("edit"), levels=(2,))


def lines(workdir, name="assignments.csv"):
    with (workdir / name).open(newline="") as file:
        return list(csv.DictReader(file))


def column(workdir, name="cluster", file="assignments.csv"):
    return np.array([int(line[name]) for line in lines(workdir, file)])


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_the_command_corrects_a_run(finished, tmp_path, capsys):
    workdir, part = finished
    before, row = contents(workdir), part.tolist().index(0)
    (tmp_path / "moves.csv").write_text(f"id,cluster\n{row},3\n")
    (tmp_path / "more.json").write_text('{"rename": {"2": "street signs"}}')
    flags = ["--merge=3,1", "--split=2:2", "--lock=0", f"--move={tmp_path}/moves.csv", f"--json={tmp_path}/more.json"]
    new = tmp_path / "new"
    command.main(["edit", f"--workdir={workdir}", f"--output={new}", *flags])
    assert contents(workdir) == before and "ACC" in capsys.readouterr().out
    clusters = column(new)
    # Parts of equal size: either may keep the number.
    parts = [set(clusters[part == p].tolist()) for p in range(5)]
    assert clusters[row] == 3 and set(np.delete(clusters, row)[np.delete(part, row) == 0].tolist()) == {0}
    assert parts[1] == parts[3] == {3} and {*parts[2], *parts[4]} == {2, 4} and parts[2] != parts[4]
    assert lines(new)[part.tolist().index(2 if parts[2] == {2} else 4)]["names"] == "street signs"
    assert lines(new)[row]["probability"] == "1.000000"
    sizes = {c["cluster"]: (c["size"], c["locked"]) for c in read_json(new / "clusters.json")}
    assert sizes == {0: (15, True), 2: (16, False), 3: (33, False), 4: (16, False)}
    assert read_json(new / "edits.json")["history"][0]["merge"] == [[3, 1]]
    assert len(set(column(new, "level_2").tolist())) == 2
    assert "street signs" in (new / "report.html").read_text()


def test_prediction_follows_the_corrections(finished, tmp_path):
    """New rows go through the same map: merged outputs are added, parts go by their centroids."""
    workdir, _ = finished
    edit(workdir, tmp_path / "new", Request(merge=[[0, 1]], split={2: 2}))
    image, part = small.rows(50, seed=1)
    np.savez(tmp_path / "more.npz", image=image)
    predict.main(["p", f"--workdir={tmp_path / 'new'}", f"--input={tmp_path}/more.npz", f"--output={tmp_path}/o.csv"])
    new = column(tmp_path, file="o.csv")
    numbers = [set(new[part == p].tolist()) for p in range(5)]
    assert numbers[0] == numbers[1] == {0} and numbers[3] == {3} and {*numbers[2], *numbers[4]} == {2, 4}
    predictor = Predictor.restore(tmp_path / "new")
    unit = image / np.linalg.norm(image, axis=1, keepdims=True)
    assert predictor.clusters == [0, 2, 3, 4] and predictor.predict({"image": unit}).tolist() == new.tolist()
    np.testing.assert_allclose(predictor.predict_proba({"image": unit}).sum(1), 1, rtol=1e-5)
    with pytest.raises(UserError, match="corrected by hand"):
        export.of_run(tmp_path / "new")


def test_corrections_of_corrections(finished, tmp_path):
    workdir, part = finished
    rows = [str(i) for i in np.flatnonzero(part == 3)[:2]]
    edit(workdir, tmp_path / "a", Request(split={2: 2}, move={rows[0]: -1}, lock=[3]))
    edit(tmp_path / "a", tmp_path / "b", Request(merge=[[0, 4]], rename={0: "both"}))
    clusters = column(tmp_path / "b")
    assert clusters[int(rows[0])] == -1 and set(clusters.tolist()) == {-1, 0, 1, 2, 3}
    state = read_json(tmp_path / "b" / "edits.json")
    assert [list(step) for step in state["history"]] == [["split", "move", "lock"], ["merge", "rename"]]
    with pytest.raises(UserError, match="in cluster 3, which is locked"):
        edit(tmp_path / "b", tmp_path / "c", Request(move={rows[1]: 0}))
    # A whole file of assignments may be given: only what differs is a move.
    same = {line["id"]: int(line["cluster"]) for line in lines(tmp_path / "b")}
    edit(tmp_path / "b", tmp_path / "c", Request(move=same))
    assert read_json(tmp_path / "c" / "edits.json")["moved"] == state["moved"]
    np.testing.assert_array_equal(column(tmp_path / "c"), clusters)


def test_nothing_is_overwritten_or_half_written(finished, tmp_path):
    workdir, _ = finished
    before = contents(workdir)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x").write_text("mine")
    for output, request, words in (
        (tmp_path / "there", Request(lock=[1]), "is there already"),
        (tmp_path / "new", Request(move={"1000": 1}), "no row '1000'"),
        (tmp_path / "new", Request(split={0: 500}), "too few different rows"),
    ):
        with pytest.raises(UserError, match=words):
            edit(workdir, output, request)
    assert [path.name for path in tmp_path.iterdir()] == ["there"] and contents(workdir) == before
    with pytest.raises(UserError, match="nothing to correct"):
        command.main(["edit", f"--workdir={workdir}", f"--output={tmp_path}/new"])


def test_other_data_are_refused(finished, tmp_path):
    workdir, _ = finished
    shutil.copytree(workdir, tmp_path / "run")
    table = (tmp_path / "run" / "assignments.csv").read_text().replace("\n3,", "\nthree,", 1)
    (tmp_path / "run" / "assignments.csv").write_text(table)
    with pytest.raises(UserError, match="lacks the row 'three'"):
        edit(tmp_path / "run", tmp_path / "new", Request(lock=[1]))
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(UserError, match="no finished run"):
        edit(tmp_path / "run", tmp_path / "new", Request(lock=[1]))


@pytest.mark.filterwarnings("ignore:only")
@pytest.mark.long
def test_an_estimator_is_corrected_and_fitted_again():
    image, _ = small.rows()
    model = FeatureClustering(n_clusters=4, random_state=0, settings={"model.num_steps": 30}).fit(image)
    before = model.labels_.copy()
    assert set(model.rows_) == {"second", "second_probability", "outlier", "duplicate_group", "typical"}
    a, b = np.unique(before)[:2].tolist()
    model.edit(image, merge=[(b, a)], rename={b: "both"})
    assert set(model.labels_.tolist()) == set(before.tolist()) - {a} and model.n_clusters_ == 3
    np.testing.assert_array_equal(model.predict(image), np.where(before == a, b, before))
    model.refit(image, labels={0: "x"}, pairs=[(0, 5, True)], steps=3)
    assert model.predict_proba(image).shape == (80, 3) and set(model.labels_.tolist()) <= set(range(4)) - {a}
