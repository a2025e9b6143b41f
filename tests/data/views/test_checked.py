"""Tests labels, missing views, and errors of users in multi-view files."""

import io

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from clustering_jax.data.views.dataset import multiview
from tests.data.views.view_files import A, B, N, Y, assert_views, cells, refuses, save, text

LABELS = {
    "column": (Y[:, None], Y),
    "row": (Y[None] + 1, Y + 1),
    "float": (Y * 7.0, Y * 7),
    "bool": (Y > 0, Y > 0),
    "text": (np.array(["b", "a", "c"])[Y], np.array([1, 0, 2])[Y]),
    "partly unknown": (Y - 1, Y - 1),
    "unknown": (np.full(N, -1), None),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels(tmp_path, case):
    stored, expected = LABELS[case]
    found = multiview(save(tmp_path / "a.npz", {"view0": A, "view1": B, "y": stored}), label_key="y")
    if expected is None:
        assert found.labels is None
        return
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == list(expected)
    assert found.notes == (
        ("2 of 6 objects have no label, because it is negative or missing",) if case == "partly unknown" else ()
    )


def test_the_index_of_pandas_is_not_used_as_labels(tmp_path):
    (tmp_path / "y.csv").write_text(",class\n" + "\n".join(f"{i},{y}" for i, y in enumerate(Y)))
    path = save(tmp_path / "a.npz", {"view0": A, "view1": B})
    assert multiview(path, label_key=str(tmp_path / "y.csv")).labels.tolist() == Y.tolist()


@pytest.mark.parametrize("header", ["", "class\n"])
@pytest.mark.parametrize(("words", "expected"), [("bac", [1, 0, 2]), (["7", "10", "3"], [7, 10, 3])])
def test_labels_of_a_csv(tmp_path, header, words, expected):
    (tmp_path / "y.csv").write_text(header + "\n".join(words[y] for y in Y))
    path = save(tmp_path / "a.mat", {"X1": A, "X2": B, "Y": cells(*(["z", "xx", "y"][y] for y in Y))})
    assert multiview(path, label_key=str(tmp_path / "y.csv")).labels.tolist() == [expected[y] for y in Y]
    assert multiview(path, label_key="Y").labels.tolist() == [[2, 0, 1][y] for y in Y]


class TestMissing:
    MASK = np.array([[1, 1], [0, 1], [1, 1], [1, 0], [1, 1], [0, 1]])

    def check(self, found, first, second):
        assert_views(found, np.where(self.MASK[:, :1] == 1, first, 0), np.where(self.MASK[:, 1:] == 1, second, 0))
        assert found.features["mask"].dtype == bool
        np.testing.assert_array_equal(found.features["mask"], self.MASK)
        assert "3 of 6 objects lack a view" in found.notes

    @pytest.mark.parametrize("dtype", [bool, np.uint8, np.float64])
    def test_missing_views_by_mask(self, tmp_path, dtype):
        spoilt = np.where(self.MASK[:, :1] == 1, A, np.nan)
        path = save(tmp_path / "a.npz", {"view0": spoilt, "view1": B, "mask": self.MASK.astype(dtype)})
        self.check(multiview(path, mask_key="mask"), A, B)

    def test_missing_views_by_nan(self, tmp_path):
        spoilt = [np.where(self.MASK[:, [v]] == 1, view, np.nan) for v, view in enumerate((A, B))]
        for v, view in enumerate(spoilt):
            save(tmp_path / f"{v}.csv", text(view).replace("nan", "NA" if v else ""))
        self.check(multiview(tmp_path, missing="nan"), A, B)

    def test_missing_views_by_mask_and_nan(self, tmp_path):
        spoilt, mask = B.copy(), self.MASK.copy()
        spoilt[3], mask[3, 1] = np.nan, 1
        path = save(tmp_path / "a.npz", {"view0": A, "view1": spoilt, "m": mask})
        self.check(multiview(path, mask_key="m", missing="nan"), A, B)

    def test_first_row_of_a_csv(self, tmp_path):
        save(tmp_path / "a.csv", ",,\n" + text(A[1:]))
        found = multiview([tmp_path / "a.csv", save(tmp_path / "b.npy", B)], missing="nan")
        assert found.features["mask"][:, 0].tolist() == [False] + [True] * 5

    def test_scaled_rows_stay_zero(self, tmp_path):
        path = save(tmp_path / "a.npz", {"view0": A + 9, "view1": B, "m": self.MASK})
        found = multiview(path, mask_key="m", scaling="standard")
        here = self.MASK[:, 0] == 1
        assert (found.features["view0"][~here] == 0).all()
        np.testing.assert_allclose(found.features["view0"][here], StandardScaler().fit_transform(A[here]), atol=1e-5)

    def test_complete_data_has_no_mask(self, tmp_path):
        path = save(tmp_path / "a.npz", {"view0": A, "view1": B, "m": np.ones((N, 2))})
        assert list(multiview(path, mask_key="m", missing="nan").features) == ["view0", "view1"]


def put(array, row, column, value):
    changed = np.array(array, np.float64)
    changed[row, column] = value
    return changed


def cut(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()[:-20]


TWO = {"view0": A, "view1": B}


WRONG_FILES = {
    "a key": (TWO, {"views": ("view0", "viev1")}, r"a\.npz has no array 'viev1' \(did you mean 'view1'\?\)"),
    "a label key": (TWO | {"labels": Y}, {"label_key": "label"}, "no array 'label' .*'labels'"),
    "a mask key": (TWO, {"mask_key": "mask"}, "no array 'mask'"),
    "no views by name": ({"p": A, "q": B}, {}, "holds p, q: name the arrays to use in views"),
    "one view": ({"view0": A}, {}, r"\['view0'\] is the only view: name two or more"),
    "lengths": ({"view0": A, "view1": B[1:]}, {}, r"\['view0'\] has 6 rows, .*\['view1'\] has 5: a row must be"),
    "columns": ({"view0": A.T, "view1": A.T[:2]}, {}, "has 3 rows.*has 2: if objects are columns, set transpose"),
    "nan": (TWO | {"view1": put(B, 4, 1, np.nan)}, {}, r"\['view1'\] row 4, column 1 is nan.*correct it"),
    "nan in part": (TWO | {"view1": put(B, 4, 1, np.nan)}, {"missing": "nan"}, "row 4, column 1 is nan"),
    "nan row": (TWO | {"view1": put(B, 4, slice(None), np.nan)}, {}, "row 4, column 0 is nan.*set missing to nan"),
    "inf": (TWO | {"view0": put(A, 2, 0, -np.inf)}, {}, r"\['view0'\] row 2, column 0 is -inf"),
    "beyond float32": (TWO | {"view0": put(A, 2, 0, 1e39)}, {}, r"row 2, column 0 is 1e\+39, not finite in float32"),
    "objects": (TWO | {"view0": np.array([[{}], [1]])}, {}, "Python objects"),
    "text": (TWO | {"view0": A.astype(str)}, {}, r"\['view0'\] is <U.*, not numbers"),
    "complex": (TWO | {"view0": A + 1j}, {}, "is complex128, not numbers"),
    "constant": (TWO | {"view1": np.full((N, 2), 0.1)}, {}, r"\['view1'\] is 0.1 everywhere"),
    "no rows": ({"view0": A[:0], "view1": B[:0]}, {}, r"\(0, 3\): it is empty"),
    "no columns": (TWO | {"view0": A[:, :0]}, {}, r"\['view0'\] has shape \(6, 0\): it is empty"),
    "rank 1": (TWO | {"view0": A[:, 0]}, {}, r"\['view0'\] has shape \(6,\): a view is \[rows, columns\]"),
    "mask shape": (TWO | {"m": np.ones((2, N))}, {"mask_key": "m"}, r"\['m'\] has shape \(2, 6\).*\(6, 2\)"),
    "mask values": (TWO | {"m": np.full((N, 2), 2)}, {"mask_key": "m"}, r"\['m'\] must be of 0 and 1"),
    "no view": (TWO | {"m": put(np.ones((N, 2)), 3, slice(None), 0)}, {"mask_key": "m"}, "row 3 has no view at all"),
    "no object": (TWO | {"m": np.tile([1, 0], (N, 1))}, {"mask_key": "m"}, r"\['view1'\] is missing in every row"),
    "label length": (TWO | {"y": Y[1:]}, {"label_key": "y"}, r"\['y'\] has shape \(5,\).*6 rows"),
    "label shape": (TWO | {"y": Y.reshape(2, 3)}, {"label_key": "y"}, r"shape \(2, 3\)"),
    "label parts": (TWO | {"y": Y + 0.5}, {"label_key": "y"}, "labels must be whole numbers"),
    "label infinite": (TWO | {"y": np.full(N, np.inf)}, {"label_key": "y"}, "labels must be whole numbers"),
    "missing": (TWO, {"missing": "zero"}, "missing is 'zero'"),
    "scaling": (TWO, {"scaling": "minmx"}, "unknown scaling 'minmx' .*'minmax'"),
    "scalings": (TWO, {"scaling": ("none",) * 3}, "scaling names 3 for 2 views"),
    "counts": (TWO | {"view1": put(B, 5, 1, -1)}, {"scaling": "tfidf"}, r"\['view1'\] row 5, column 1 is -1.*tfidf"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_wrong_arrays(tmp_path, case):
    arrays, options, expected = WRONG_FILES[case]
    refuses(expected, save(tmp_path / "a.npz", arrays), **options)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.npy", b"", r"a\.npy can't be read, it is damaged"),
        ("a.npy", b"no array at all", r"a\.npy holds Python objects or no array"),
        ("a.npy", cut(A), r"a\.npy can't be read"),
        ("a.npz", b"PK\x03\x04 and no more", r"a\.npz can't be read"),
        ("a.mat", b"MATLAB 5.0 MAT-file, broken off" * 9, r"a\.mat can't be read"),
        ("a.mat", b"", r"a\.mat can't be read"),
        ("a.parquet", b"PAR1", r"a\.parquet can't be read"),
        ("a.csv", b"\xff\xfe1,2", r"a\.csv can't be read"),
        ("a.csv", b"", r"a\.csv has shape \(0, 0\): it is empty"),
        ("a.csv", b"p,q\n1,2\n3,x\n", r"a\.csv row 1, column 1 is 'x', not a number"),
        ("a.csv", b"p,q\n1,2\n3\n", r"a\.csv row 1 has 1 columns, the first line 2"),
        ("a.csv", b"red\ngreen\n", r"a\.csv row 0, column 0 is 'green', not a number"),
        ("a.csv", b"1;2\n3;4\n", r"a\.csv row 0, column 0 is '3;4'.*commas"),
    ],
)
def test_wrong_files(tmp_path, name, content, expected):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    refuses(expected, [tmp_path / name, save(tmp_path / "b.npy", B)])


def test_wrong_paths(tmp_path):
    a, two = save(tmp_path / "a.npy", A), save(tmp_path / "two.npz", {"p": A, "q": B})
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("1")
    refuses("path is empty", "")
    refuses("'nowhere.npz' does not exist", "nowhere.npz")
    refuses("'nowhere.npy' does not exist", f"{a},nowhere.npy")
    refuses(r"a\.txt is of an unknown type", tmp_path / "a.txt")
    refuses("holds no files of arrays", tmp_path / "empty")
    refuses(r"a\.npy twice", [a, a])
    refuses(r"two\.npz holds p, q: one of several files must hold one array, or views name it", [a, two])
    refuses(r"a\.npy is the only view", a)
    refuses(r"two\.npz holds no views", save(tmp_path / "empty" / "two.npz", {"y": Y}), label_key="y")
    refuses("empty holds no views", tmp_path / "empty", label_key="two.npz")
    refuses("is not a file of an array", [tmp_path / "empty", a])


def test_text_column_in_parquet(tmp_path):
    path = save(tmp_path / "a.parquet", {"p": A[:, 0], "word": list("abcdef")})
    refuses(r"a\.parquet column 'word' is string, not numbers", [path, save(tmp_path / "b.npy", B)])
    labels = save(tmp_path / "y.parquet", {"word": list("cabbac")})
    found = multiview(save(tmp_path / "a.npz", TWO), label_key=str(labels))
    assert found.labels.tolist() == Y.tolist()


def test_pickles_are_not_run(tmp_path, monkeypatch):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("a pickle was loaded",)

    np.save(tmp_path / "a.npy", np.array([Trap()], object), allow_pickle=True)
    refuses("Python objects", [tmp_path / "a.npy", save(tmp_path / "b.npy", B)])
