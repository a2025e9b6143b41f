"""New rows for a finished run: embeddings, arrays, folders and photos."""

import re

import numpy as np
import pytest
from PIL import Image

from clustering_jax import predict, run, settings
from clustering_jax import update as command
from clustering_jax.data.planted import planted
from clustering_jax.editing import Request, Training, edit, update
from clustering_jax.errors import UserError
from clustering_jax.files import read_json
from clustering_jax.inference.predictor import Predictor
from clustering_jax.settings import own_method
from tests.editing import small
from tests.editing.test_edit import column, contents, lines
from tests.paths import ROOT
from tests.test_run_photos import config_of, write_photos

COLOURS = np.array([[220, 30, 30], [30, 200, 40], [240, 240, 60]])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return small.trained(tmp_path_factory.mktemp("update"), levels=(2,))


def new_rows(path, kinds=24):
    """Rows of the old parts, and as many as `kinds` around a direction that no old row has."""
    image, part = small.rows(40, seed=3)
    other = np.eye(6)[4] + np.random.default_rng(4).normal(0, 0.04, (kinds, 6))
    np.savez(path, image=np.concatenate([image, other]).astype(np.float32))
    return part


def test_the_command_adds_rows_and_offers_a_cluster(finished, tmp_path, capsys):
    workdir, part = finished
    before, more = contents(workdir), new_rows(tmp_path / "more.npz")
    flags = ["update", f"--workdir={workdir}", f"--input={tmp_path}/more.npz"]
    command.main([*flags, f"--output={tmp_path}/new", "--steps=0"])
    printed = capsys.readouterr().out
    assert (
        re.search(r"64 new rows; 2[4-6] fit no cluster: .* 24 form groups", printed)
        and "group 0 can be a new cluster: 24 rows" in printed
    )
    assert contents(workdir) == before and sorted(p.name for p in tmp_path.iterdir()) == ["more.npz", "new"]
    table, clusters = lines(tmp_path / "new"), column(tmp_path / "new")
    assert [row["id"] for row in table[:2] + table[80:82]] == ["0", "1", "more.npz:0", "more.npz:1"]
    np.testing.assert_array_equal(clusters[:80], column(workdir))
    same = {p: set(clusters[:80][part == p].tolist()) for p in range(5)}
    assert all({c} == same[p] for p, c in zip(more.tolist(), clusters[80:120].tolist(), strict=True))
    group = [row["new_group"] for row in table]
    assert group[:80] + group[120:] == [""] * 80 + ["0"] * 24 and set(group[80:120]) <= {"", "-1"}
    result = read_json(tmp_path / "new" / "result.json")
    facts = result["updates"][0]
    assert facts["rows"] == {"old": 80, "new": 64} and facts["groups"][0]["cluster"] is None and facts["changed"] == 0
    assert (
        len(facts["groups"][0]["typical"]) == 3
        and facts["drift"]["distance"]["new"] > facts["drift"]["distance"]["old"]
    )
    assert [entry["rows"] for entry in result["sizes"]] == [80, 144] and sum(
        result["sizes"][1]["sizes"].values()
    ) == 144
    assert Predictor.restore(tmp_path / "new").rule.outputs == ()  # so that it can be exported
    assert "level_2" in table[0] and (tmp_path / "new" / "report.html").exists()


def test_an_accepted_group_is_a_cluster_without_training(finished, tmp_path):
    workdir, _ = finished
    new_rows(tmp_path / "more.npz")
    result = update(workdir, tmp_path / "new", tmp_path / "more.npz", new_clusters="all", training=None)
    clusters = column(tmp_path / "new")
    np.testing.assert_array_equal(clusters[:80], column(workdir))
    assert set(clusters[120:].tolist()) == {4} and result["clusters"] == [0, 1, 2, 3, 4]
    # Later rows go the same way, and the run can be corrected and updated again.
    predict.main(["p", f"--workdir={tmp_path}/new", f"--input={tmp_path}/more.npz", f"--output={tmp_path}/o.csv"])
    np.testing.assert_array_equal(column(tmp_path, file="o.csv"), clusters[80:])
    edit(tmp_path / "new", tmp_path / "edited", Request(rename={4: "birds"}))
    result = update(tmp_path / "edited", tmp_path / "again", tmp_path / "more.npz", training=None)
    assert not result["updates"][1]["groups"] and [entry["rows"] for entry in result["sizes"]] == [80, 144, 208]
    table = lines(tmp_path / "again")
    assert table[144]["id"] == "more.npz-2:0" and table[207]["names"] == "birds" and table[207]["cluster"] == "4"
    # All added rows are in the last workdir.
    scored = read_json(tmp_path / "again" / "config.json")["scored"]
    assert scored["first"]["source"] == "embeddings" and scored["added"] == str(tmp_path / "again" / "added")
    assert [next(iter(step)) for step in read_json(tmp_path / "again" / "edits.json")["history"]] == [
        "update",
        "rename",
        "update",
    ]


@pytest.mark.long
def test_training_goes_on_with_all_rows(finished, tmp_path):
    workdir, part = finished
    more = new_rows(tmp_path / "more.npz")
    training = Training(40, learning_rate=0.1)
    edit(workdir, tmp_path / "old", Request(merge=[[0, 1]], split={2: 2}, rename={3: "kept"}))
    result = update(
        tmp_path / "old", tmp_path / "new", tmp_path / "more.npz", new_clusters=[0], training=training, quiet=True
    )
    old, clusters = column(tmp_path / "old"), column(tmp_path / "new")
    assert result["clusters"] == [0, 2, 3, 4, 5] and result["updates"][0]["groups"][0]["cluster"] == 5
    np.testing.assert_array_equal(clusters[:80], old)
    same = {p: set(old[part == p].tolist()) for p in range(5)}
    assert all({c} == same[p] for p, c in zip(more.tolist(), clusters[80:120].tolist(), strict=True))
    assert set(clusters[120:].tolist()) == {5}
    assert read_json(tmp_path / "new" / "edits.json")["outputs"] == [[0], [2], [3], [4], [5]]
    assert read_json(tmp_path / "new" / "clusters.json")[2]["names"] == ["kept"]
    assert read_json(tmp_path / "new" / "edits.json")["history"][-1]["retrain"]["steps"] == 40


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--new_clusters=1"], "there is no group 1 of new rows: the groups are 0"),
        (["--new_clusters=many"], "give the numbers of groups"),
        (["--steps=-1"], "choose 1 or more"),
        (["--input=absent.npz"], "absent.npz"),
        (["--input=wide.npz"], "7 columns, the run was trained on 6"),
        (["--output=."], "is there already"),
    ],
)
def test_what_can_not_be_done(finished, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    new_rows("more.npz")
    np.savez("wide.npz", image=np.ones((3, 7), np.float32))
    with pytest.raises(UserError, match=words):
        command.main(["u", f"--workdir={finished[0]}", "--input=more.npz", "--output=new", "--steps=0", *flags])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["more.npz", "wide.npz"]


def images(count, seed, colours=(0, 1)):
    """Images of 6 x 6 pixels of plain colours with some noise, and the number of the colour of each."""
    rng, kind = np.random.default_rng(seed), np.arange(count) % len(colours)
    kind = np.array(colours)[kind]
    pixels = COLOURS[kind][:, None, None] + rng.normal(0, 12, (count, 6, 6, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8), kind


def write_folder(folder, pixels):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i}.png")


def trained_on_images(workdir, data):
    config = own_method(
        f"{ROOT / 'tests' / 'editing' / 'mean_colour.py'}:build",
        num_clusters=2,
        batch_size=20,
        epochs=1,
        data=data,
        optimizer={"learning_rate": 1e-4},
    ).to_dict()
    run.train(config, workdir, quiet=True, reported=False)
    return column(workdir)


@pytest.mark.long
def test_arrays_of_images(tmp_path):
    pixels, kind = images(60, 0)
    np.save(tmp_path / "old.npy", pixels)
    more, kinds = images(45, 1, (0, 1, 2))
    np.savez(tmp_path / "more.npz", image=more)
    old = trained_on_images(tmp_path / "run", {"source": "arrays", "path": str(tmp_path / "old.npy")})
    result = update(tmp_path / "run", tmp_path / "new", tmp_path / "more.npz", training=Training(5), quiet=True)
    clusters = column(tmp_path / "new")
    assert result["updates"][0]["groups"][0]["rows"] == 15
    np.testing.assert_array_equal(clusters[:60], old)
    assert all(set(clusters[60:][kinds == k].tolist()) == set(old[kind == k].tolist()) for k in (0, 1))


@pytest.mark.long
def test_a_folder_that_has_grown(tmp_path):
    """Of the run's own folder only the new files count; another folder's ids are relative to it."""
    pixels, _ = images(60, 0)
    write_folder(tmp_path / "photos" / "a", pixels)
    trained_on_images(tmp_path / "run", {"source": "folder", "path": str(tmp_path / "photos"), "size": 6})
    with pytest.raises(UserError, match="no new row"):
        update(tmp_path / "run", tmp_path / "new", tmp_path / "photos", training=None)
    write_folder(tmp_path / "photos" / "b", images(20, 1)[0])
    write_folder(tmp_path / "elsewhere", images(15, 2, (2,))[0])
    update(tmp_path / "run", tmp_path / "new", tmp_path / "photos", training=None)
    assert [line["id"] for line in lines(tmp_path / "new")[58:62]] == ["a/58.png", "a/59.png", "b/0.png", "b/1.png"]
    result = update(tmp_path / "new", tmp_path / "newer", tmp_path / "elsewhere", training=None, new_clusters="all")
    table = lines(tmp_path / "newer")
    assert len(table) == 95 and table[80]["id"] == "../elsewhere/0.png" and result["clusters"] == [0, 1, 2]
    assert {line["cluster"] for line in table[80:]} == {"2"}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:only")
def test_photos(tmp_path):
    write_photos(tmp_path / "photos")
    run.train(config_of(tmp_path / "photos"), tmp_path / "run", quiet=True, reported=False)
    write_folder(tmp_path / "photos", images(3, 3)[0])
    command.main(
        ["u", f"--workdir={tmp_path}/run", f"--input={tmp_path}/photos", f"--output={tmp_path}/new", "--steps=3"]
    )
    table = lines(tmp_path / "new")
    assert [line["id"] for line in table[24:]] == ["0.png", "1.png", "2.png"]
    assert "data:image" in (tmp_path / "new" / "report.html").read_text()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:some of")
def test_views_of_which_new_rows_lack_some(tmp_path):
    views = planted(90, num_clusters=3, width=6, private=0.0).features
    more = [views["view0"][60:].copy(), views["view1"][60:]]
    more[0][:5] = np.nan
    np.savez(tmp_path / "old.npz", X1=views["view0"][:60], X2=views["view1"][:60])
    np.savez(tmp_path / "more.npz", X1=more[0], X2=more[1])
    data = {"source": "multiview", "path": str(tmp_path / "old.npz"), "scaling": "minmax", "missing": "nan"}
    config = settings.turtle(num_clusters=3, data=data, model={"num_steps": 5}, rows={"neighbours": 3}).to_dict()
    run.train(config, tmp_path / "run", quiet=True, reported=False)
    predict.main(
        ["p", f"--workdir={tmp_path}/run", f"--input={tmp_path}/more.npz", f"--output={tmp_path}/assignments.csv"]
    )
    flags = [f"--workdir={tmp_path}/run", f"--input={tmp_path}/more.npz", f"--output={tmp_path}/new", "--steps=0"]
    command.main(["u", *flags])
    wanted = np.concatenate([column(tmp_path / "run"), column(tmp_path)])
    np.testing.assert_array_equal(column(tmp_path / "new"), wanted)
    edit(tmp_path / "new", tmp_path / "trained", Request(), training=Training(2), quiet=True)
    assert len(column(tmp_path / "trained")) == 90
