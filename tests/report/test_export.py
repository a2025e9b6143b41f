"""Tests the exports: files in one folder per cluster, and a table for other programs."""

import builtins

import numpy as np
import pytest

from clustering_jax import report
from clustering_jax.errors import UserError
from clustering_jax.report import __main__ as command
from clustering_jax.report import export
from clustering_jax.report.layout import points_of
from tests.report import report_content as made

IDS = ["a.jpg", "sub/b.jpg", "sub/a.jpg", "c.jpg"]


@pytest.fixture
def photos(tmp_path):
    """A run of four files in clusters 0, 1, 1 and none; the last file is gone."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in IDS[:3]:
        (folder / name).write_text(name)
    content = made.content("embeddings", names=[["street signs", "a/b"], []])
    assigned = content.assigned._replace(ids=IDS, clusters=np.array([0, 1, 1, -1]), confidence=np.ones(4), columns={})
    return content._replace(assigned=assigned, folder=folder, dataset=None, rows=None, embedding=None)


def files(directory):
    return {str(path.relative_to(directory)): path for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("copy", [False, True])
def test_each_file_is_in_the_folder_of_its_cluster(photos, tmp_path, copy):
    line = export.folders(photos, tmp_path / "out", copy=copy)
    found = files(tmp_path / "out")
    assert set(found) == {"0_street_signs_a_b/a.jpg", "1/sub/b.jpg", "1/sub/a.jpg"}
    assert {name.partition("/")[2]: path.read_text() for name, path in found.items()} == {n: n for n in IDS[:3]}
    assert {path.is_symlink() for path in found.values()} == {not copy}
    assert line == f"3 files {'copied' if copy else 'linked'} in 2 folders of {tmp_path}/out; 1 files are gone"


def test_folders_of_rows_without_a_cluster_and_of_many_clusters(photos):
    many = photos._replace(assigned=photos.assigned._replace(k=120))
    assert [export.folder_name(many, c) for c in (-1, 0, 7)] == ["no_cluster", "000_street_signs_a_b", "007"]


def test_nothing_is_half_written(photos, tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export.shutil, "copy2", broken)
    with pytest.raises(UserError, match="No space left"):
        export.folders(photos, tmp_path / "out", copy=True)
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


def test_rows_that_are_no_files_have_no_folders(tmp_path):
    with pytest.raises(UserError, match="are no files"):
        export.folders(made.content(), tmp_path / "out", copy=False)
    with pytest.raises(UserError, match="has no assignments"):
        export.folders(made.content(assigned=None), tmp_path / "out", copy=False)


def test_the_table_has_every_row(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    content = made.content(names=[["one"], ["two", "words"]])
    line = export.table(content, tmp_path / "t.parquet", "pca", parquet)
    found = parquet.read_table(tmp_path / "t.parquet").to_pydict()
    assigned, points = content.assigned, points_of(content, "pca")
    assert found["id"] == assigned.ids and found["cluster"] == assigned.clusters.tolist()
    np.testing.assert_allclose(found["probability"], assigned.confidence)
    np.testing.assert_allclose(np.stack([found["x"], found["y"]], 1), points.places)
    assert found["label"] == content.dataset.labels.tolist() and "path" not in found
    assert {found["name"][i] for i, c in enumerate(found["cluster"]) if c == 1} == {"two, words"}
    assert found["typical"].count(1) == 9 and found["duplicate_group"][:3] == [0, 0, None]
    assert line == f"400 rows written to {tmp_path}/t.parquet" and len(list(tmp_path.iterdir())) == 1


def test_paths_of_the_table_are_whole_and_readable(photos):
    ids = ["caf\udce9.jpg", *IDS[1:]]
    found = export.columns(photos._replace(assigned=photos.assigned._replace(ids=ids)), "pca")
    assert found["path"][1] == f"{photos.folder}/sub/b.jpg" and found["id"][0] == "caf\ufffd.jpg"
    assert "x" not in found and "label" not in found and found["cluster"] == [0, 1, 1, -1]


def test_the_embedding_of_a_sample_leaves_the_other_rows_without_a_place():
    content = made.content()
    part = content._replace(rows=content.rows[::2], embedding=content.embedding[::2])
    found = export.columns(part, "pca")
    assert found["x"][1] is None and found["y"][2] is not None


def test_wrong_flags_are_refused_in_a_line(tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    call = ["report", f"--workdir={tmp_path}"]
    cases = {
        ("--export=folder",): "--export=folder is unknown .did you mean 'folders'",
        ("--export=folders", f"--output={tmp_path}/full"): "is there already",
        ("--export=parquet", f"--output={tmp_path}/full"): "is a directory",
        ("--export=folders", f"--output={tmp_path}/new"): "holds no run",
        ("--copy",): "--copy is for --export",
        (f"--output={tmp_path}/x",): "--output is for --export",
    }
    for flags, words in cases.items():
        with pytest.raises(UserError, match=words):
            command.main([*call, *flags])
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name == "pyarrow":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"needs pyarrow: pip install 'clustering_jax\[tables\]'"):
        command.main([*call, "--export=parquet"])
    assert not (tmp_path / report.NAME).exists()
