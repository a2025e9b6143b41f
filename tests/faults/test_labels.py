"""Labels: one meaning of "unknown" for every source and for y, and a file of labels is never a view."""

import csv

import numpy as np
import pytest

from clustering_jax import data, metrics
from clustering_jax.data.labels import column_of, named_as_labels, read_labels
from clustering_jax.errors import UserError
from clustering_jax.estimators.inputs import labelled
from clustering_jax.run import load_streams
from tests.data.views.view_files import A, B, N, Y, save
from tests.toy import dataset

NAN = float("nan")
# What a user writes for one label, and how it is read: the third of four labels.
UNKNOWN = {
    "negative": np.array([1, 0, -7, 1]),
    "NaN": np.array([1.0, 0, NAN, 1]),
    "None": [1, 0, None, 1],
    "a float that is not a number among objects": np.array([1, 0, NAN, 1], object),
    "an empty text": ["b", "a", "", "b"],
    "blanks": ["b", "a", "  ", "b"],
    "NA": ["b", "a", "NA", "b"],
    "None as text": np.array(["b", "a", None, "b"], object),
    "numbers as text": ["1", "0", "nan", "1"],
    "floats as text": ["1.0", "0.0", "", "1.0"],
    "bytes": np.array([b"b", b"a", b"", b"b"]),
    "masked": np.ma.array([1, 0, 5, 1], mask=[0, 0, 1, 0]),
    "pandas' NA": ["b", "a", "<NA>", "b"],
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_labels_have_one_meaning(case):
    labels = UNKNOWN[case]
    assert read_labels(labels, 4, "y").tolist() == [1, 0, -1, 1]
    assert labelled(dataset(4), labels).labels.tolist() == [1, 0, -1, 1]


@pytest.mark.parametrize("labels", [[-1, -1], ["", "NA"], [None, NAN], np.array([NAN, NAN])])
def test_no_known_label_is_no_labels(labels):
    assert read_labels(labels, 2, "y") is None


@pytest.mark.parametrize(
    "labels", [[0.5, 1], [np.inf, 1], [1e30, 0], [[0, 1], [1, 0]], [0, 1, 1], np.zeros(2, "M8[s]")]
)
def test_labels_that_are_none(labels):
    with pytest.raises(UserError, match=r"^y "):
        read_labels(labels, 2, "y")


# The lines of a CSV with three labels, and what they mean; None is refused.
COLUMNS = {
    "bare": ("b\na\nb\n", ["b", "a", "b"]),
    "a header": ("label\nb\na\nb\n", ["b", "a", "b"]),
    "a header of any name": ("kind\nb\na\nb\n", ["b", "a", "b"]),
    "pandas' header of a number": ("0\n7\n8\n9\n", ["7", "8", "9"]),
    "pandas' index": (",label\n0,b\n1,a\n2,b\n", ["b", "a", "b"]),
    "an id and a label": ("id,label\n5,b\n6,a\n7,b\n", ["b", "a", "b"]),
    "a label before others": ("class,file\nb,x.png\na,y.png\nb,z.png\n", ["b", "a", "b"]),
    "a blank line at the end": ("b\na\nb\n\n\n", ["b", "a", "b"]),
    "a blank line is an unknown label": ("label\nb\n\nb\n", ["b", "", "b"]),
    "the last label is unknown": ("1\n0\n\n", ["1", "0", ""]),
    "a header and an unknown last label": ("label\n1\n0\n\n", ["1", "0", ""]),
    "quotes": ('label\nb\n""\nb\n', ["b", "", "b"]),
    "a class named y": ("y\nn\ny\n", ["y", "n", "y"]),
    "a blank line that may shift them": ("kind\nb\n\nc\n", None),
    "one too few": ("label\nb\na\n", None),
    "one too few numbers": ("number\n1\n0\n", None),
    "two too many": ("b\na\nb\na\nb\n", None),
    "columns without a name": ("5,b\n6,a\n7,b\n", None),
    "two columns named so": ("label,class\nb,1\na,2\nb,3\n", None),
    "nothing": ("", None),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_the_labels_of_a_csv(case):
    text, expected = COLUMNS[case]
    rows = list(csv.reader(text.splitlines(keepends=True)))
    if expected is None:
        with pytest.raises(UserError, match=r"^y\.csv"):
            column_of(rows, 3, "y.csv")
    else:
        assert column_of(rows, 3, "y.csv") == expected


def test_a_column_by_its_name():
    rows = [["id", "kind", "label"], ["1", "x", "b"], ["2", "y", "c"]]
    assert column_of(rows, 2, "y.csv", "kind") == ["x", "y"]
    with pytest.raises(UserError, match="no column 'sort'"):
        column_of(rows, 2, "y.csv", "sort")


SOURCES = {
    "views": lambda path, y: {
        "source": "multiview",
        "path": str(save(path / "v.npz", {"view0": A, "view1": B, "y": y})),
    },
    "images": lambda path, y: {"source": "arrays", "path": str(save(path / "i.npz", {"image": IMAGES, "y": y}))},
    "embeddings": lambda path, y: {"source": "embeddings", "path": str(save(path / "e.npz", {"image": B + 1, "y": y}))},
}
IMAGES = np.arange(N * 4, dtype=np.uint8).reshape(N, 2, 2)


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_reads_labels_alike(tmp_path, source):
    words = np.array(["", "b", "a", "b", "NA", "a"])
    options = SOURCES[source](tmp_path, words)
    assert data.load(**options, label_key="y").labels.tolist() == [-1, 1, 0, 1, -1, 0]
    options = SOURCES[source](tmp_path, np.where(Y > 1, NAN, Y))
    assert data.load(**options, label_key="y").labels.tolist() == np.where(Y > 1, -1, Y).tolist()


def test_unknown_labels_are_not_scored():
    """20 of 30 unknown: NaN was a class of its own."""
    y = np.r_[np.repeat([0.0, 1.0], 5), np.full(20, NAN)]
    labels = read_labels(y, 30, "y")
    assigned = np.eye(2)[np.r_[np.zeros(5, int), np.tile([0, 1], 12), 0]]
    assert metrics.evaluate(assigned, labels)["acc"] == metrics.accuracy(y[:10], assigned[:10].argmax(1))


@pytest.mark.parametrize("bad", [NAN, np.inf, None])
@pytest.mark.parametrize("name", [*metrics.SCORES, "match"])
def test_scores_refuse_labels_that_are_not_numbers(name, bad):
    for pair in ([0, 1, bad], [0, 1, 1]), ([0, 1, 1], [0, 1, bad]):
        with pytest.raises(ValueError, match="in row 2"):
            getattr(metrics, {"acc": "accuracy", "fmi": "fowlkes_mallows"}.get(name, name))(*pair)


def test_purity_of_many_labels_needs_no_table():
    labels = np.arange(60_000)
    assert metrics.purity(labels, labels[::-1]) == 1.0


@pytest.mark.parametrize("name", ["labels.csv", "y.npy", "Y_true.npy", "targets.csv", "trueLabel.csv", "gt.npy"])
def test_a_file_of_labels_is_no_view(tmp_path, name):
    assert named_as_labels(name)
    for file, array in {"img.csv": A, "txt.csv": B, name: Y[:, None]}.items():
        save(tmp_path / file, array)
    with pytest.raises(UserError, match="label_key="):
        data.load("multiview", path=str(tmp_path))
    found = data.load("multiview", path=str(tmp_path), label_key=name)
    assert found.labels.tolist() == Y.tolist() and list(found.features) == ["view0", "view1"]
    assert found.notes == (f"{tmp_path}: the views are img.csv [6, 3], txt.csv [6, 2]",)
    named = data.load("multiview", path=str(tmp_path), views=["img.csv", name])
    assert named.features["view1"].shape == (6, 1)


@pytest.mark.parametrize("name", ["img.csv", "yellow.npy", "glasses.npy", "view1.csv", "subclassic.npy"])
def test_other_names_are_views(name):
    assert not named_as_labels(name)


# The text of a CSV, and the numbers in it; None is refused, since its first line may be either.
TABLES = {
    "pandas' header of two columns": ("0,1\n0.5,1.0\n2.0,3.5\n", [[0.5, 1], [2, 3.5]]),
    "pandas' header and index": (",0,1\n0,5,6\n1,7,8\n", [[5, 6], [7, 8]]),
    "pandas' header of three columns": ("0,1,2\n5,6,7\n8,9,9\n", [[5, 6, 7], [8, 9, 9]]),
    "pandas' header of one column": ("0\n0.5\n1.5\n", [[0.5], [1.5]]),
    "names": ("a,b\n1,2\n", [[1, 2]]),
    "no header": ("1,0\n0,1\n", [[1, 0], [0, 1]]),
    "whole numbers": ("0,1\n5,6\n7,8\n", None),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_header_of_numbers_is_no_row(tmp_path, case):
    text, expected = TABLES[case]
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(text)
    options = {"data": {"source": "multiview", "path": str(tmp_path)}, "unlabelled": {}}
    if expected is None:
        with pytest.raises(UserError, match="header"):
            load_streams(options)
    else:
        np.testing.assert_array_equal(load_streams(options)["train"].features["view0"], expected)
