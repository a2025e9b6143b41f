"""Tests multi-view files: every format, the order of views, and the scaling of new rows."""

import json
import sys

import numpy as np
import pytest
import scipy.sparse

from clustering_jax import data
from clustering_jax.data.views.checked import load_views
from clustering_jax.data.views.dataset import apply_scalings, fit_scalings, multiview
from clustering_jax.data.views.scaling import SCALINGS
from clustering_jax.errors import UserError
from tests.data.views.view_files import A, B, C, N, Y, assert_views, cells, save, text
from tests.paths import SHARED

REAL = SHARED / "data"

KEYED = {
    "npz": ("a.npz", {"view0": A, "view1": B, "y": Y}, {}),
    "mat": ("a.mat", {"X1": A, "X2": B, "Y": Y[:, None]}, {}),
    "natural order": ("a.npz", {"view10": B, "view9": A}, {}),
    "named": ("a.npz", {"text": B, "image": A, "more": C}, {"views": ["image", "text"]}),
    "named with commas": ("a.mat", {"text": B, "image": A}, {"views": "image, text"}),
    "cells": ("a.mat", {"X": cells(A, B), "Y": Y}, {}),
    "cells by name": ("a.mat", {"fea": cells(A, B)}, {"views": ("fea",)}),
    "one cell": ("a.mat", {"fea": cells(C, A, B)}, {"views": ("fea{2}", "fea{3}")}),
    "struct": ("a.mat", {"d": {"x": A, "t": B}}, {"views": ("d",)}),
    "cells of a struct": ("a.mat", {"d": {"X": cells(A, B), "n": 3}}, {"views": ("d.X",)}),
    "sparse": ("a.mat", {"X1": scipy.sparse.csc_array(A), "X2": B}, {}),
    "columns are objects": ("a.mat", {"X": cells(A.T, B.T)}, {"transpose": True}),
    "images": ("a.npz", {"view0": A.reshape(N, 3, 1), "view1": B.astype(np.float16)}, {}),
}


@pytest.mark.parametrize("case", KEYED)
def test_one_file(tmp_path, case):
    name, arrays, options = KEYED[case]
    found = multiview(save(tmp_path / name, arrays), **options)
    assert_views(found, A, B)
    assert (found.ids, found.labels, found.name, found.num_examples) == (list("012345"), None, name, N)


FILES = {
    "npy": ("a.npy", A),
    "npy in column order": ("a.npy", np.asfortranarray(A)),
    "npz": ("a.npz", A),
    "sparse": ("a.npz", scipy.sparse.csr_matrix(A)),
    "mat": ("a.mat", A),
    "parquet": ("a.parquet", A),
    "csv": ("a.csv", A),
    "csv with names": ("a.csv", text(A, "p,q,r")),
    "csv of pandas": ("a.csv", text(A, ",p,q,r", index=True)),
    "csv of pandas without names": ("a.csv", text(A, ",0,1,2", index=True)),
    "csv with numbers for names": ("a.csv", text(A, "0,1,2")),
    "csv of a spreadsheet": ("a.csv", "\ufeff" + text(A, '"p, in m","q",r').replace("\n", "\r\n")),
}


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("how", ["folder", "sequence", "commas"])
def test_one_file_for_each_view(tmp_path, case, how):
    paths = [str(save(tmp_path / FILES[case][0], FILES[case][1])), str(save(tmp_path / "b.npy", B))]
    found = multiview({"folder": tmp_path, "sequence": paths, "commas": ",".join(paths)}[how])
    assert_views(found, A, B)
    assert found.name == (tmp_path.name if how == "folder" else f"{FILES[case][0]}+b.npy")


def test_folder_in_natural_order_without_labels_and_others(tmp_path):
    for name, array in {"v10.npy": C, "v9.npy": B, "v1.npy": A, "labels.npy": Y, ".v2.npy": C, "notes.txt": ""}.items():
        save(tmp_path / name, array)
    found = multiview(tmp_path, label_key="labels.npy")
    assert_views(found, A, B, C)
    assert found.labels.tolist() == Y.tolist()
    assert_views(multiview(tmp_path, views=["v9.npy", "v1.npy"]), B, A)


def test_a_long_list_with_commas_is_not_a_file_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f"{'v' * 60}{i}.npy" for i in range(6)]
    for i, name in enumerate(names):
        save(tmp_path / name, A + i)
    assert_views(multiview(",".join(names)), *(A + i for i in range(6)))


def test_pandas_index_in_parquet_is_left_out(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"p": A[:, 0], "q": [1, None, 3, 4, 5, 6], "id": list("abcdef")})
    table = table.replace_schema_metadata({"pandas": json.dumps({"index_columns": ["id"]})})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet row 1, column 1 is nan"):
        multiview([tmp_path / "a.parquet", save(tmp_path / "b.npy", B)])


def hdf5(path):
    """Writes MATLAB 7.3: arrays transposed, cells as references into "#refs#", structs as groups, sparse by column."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    sparse = scipy.sparse.csc_array(C)
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")
        for name, array in {"a": A, "b": B}.items():
            refs[name] = array.T
        file["X"] = np.array([[refs[name].ref] for name in "ab"], h5py.ref_dtype)
        file["d/X1"], file["Y"] = A.T, Y[None]
        words = [refs.create_dataset(f"w{i}", data=np.array([[ord(c)] for c in "bac"[y] * 2])) for i, y in enumerate(Y)]
        for word in words:
            word.attrs["MATLAB_class"] = np.bytes_("char")
        file["names"] = np.array([[word.ref for word in words]], h5py.ref_dtype)
        for key, part in {"data": sparse.data, "ir": sparse.indices, "jc": sparse.indptr}.items():
            file[f"S/{key}"] = part.astype(part.dtype if key == "data" else np.uint64)
        file["S"].attrs["MATLAB_sparse"] = np.uint64(N)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + bytes([0, 2]) + b"IM")
    return path


def test_matlab_7_3(tmp_path):
    path = hdf5(tmp_path / "a.mat")
    found = multiview(path, label_key="Y")
    assert_views(found, A, B)
    assert found.labels.tolist() == Y.tolist()
    assert_views(multiview(path, views=("S", "d.X1")), C, A)
    assert multiview(path, label_key="names").labels.tolist() == [[1, 0, 2][y] for y in Y]


@pytest.mark.parametrize(("module", "name", "extra"), [("h5py", "a.mat", "mat73"), ("pyarrow", "a.parquet", "tables")])
def test_optional_libraries_are_named(tmp_path, monkeypatch, module, name, extra):
    monkeypatch.setitem(sys.modules, module, None)
    header = b"MATLAB 7.3 MAT-file".ljust(124) + bytes([0, 2]) + b"IM"
    (tmp_path / name).write_bytes(header + bytes(512))
    with pytest.raises(UserError, match=rf"{name}.*{module}.*clustering_jax\[{extra}\]"):
        multiview([tmp_path / name, save(tmp_path / "b.npy", B)])


class TestScaledViews:
    @pytest.mark.parametrize("kind", SCALINGS)
    def test_new_rows_use_the_training_scaling_after_json(self, tmp_path, kind):
        trained = multiview(save(tmp_path / "a.npz", {"view0": A, "view1": B}), scaling=kind)
        scalings = json.loads(json.dumps(trained.scalings, sort_keys=True))
        some = load_views(save(tmp_path / "b.npz", {"view0": A[4:], "view1": B[4:]}))
        assert_views(apply_scalings(some, scalings), *(view[4:] for view in trained.features.values()))

    def test_more_than_ten_views_sorted_as_text(self, tmp_path):
        path = save(tmp_path / "a.npz", {f"view{i}": A + i for i in range(11)})
        views = load_views(path)
        found = apply_scalings(views, json.loads(json.dumps(fit_scalings(views, "minmax"), sort_keys=True)))
        np.testing.assert_array_equal(found.features["view2"], multiview(path, scaling="minmax").features["view2"])

    def test_one_scaling_for_each_view(self, tmp_path):
        path = save(tmp_path / "a.npz", {"view0": A, "view1": B})
        for kinds in (["pixels", "none"], ("pixels", "none"), "pixels,none"):
            assert_views(multiview(path, scaling=kinds), A.astype(np.float32) / np.float32(255), B)

    def test_other_shapes_are_refused(self, tmp_path):
        scalings = multiview(save(tmp_path / "a.npz", {"view0": A, "view1": B})).scalings
        for arrays, expected in (
            ({"view0": A, "view1": A}, r"b\.npz \['view1'\] has 3 columns, the training data had 2"),
            ({"view0": A, "view1": B, "view2": C}, r"b\.npz has 3 views, the training data had 2"),
        ):
            with pytest.raises(UserError, match=expected):
                apply_scalings(load_views(save(tmp_path / "b.npz", arrays)), scalings)


def test_notes_on_constant_columns_and_large_sparse(tmp_path, monkeypatch):
    monkeypatch.setattr("clustering_jax.data.views.checked.LARGE", 100)
    spoilt = A.copy()
    spoilt[:, 1] = 3
    save(tmp_path / "a.npz", scipy.sparse.csr_array(spoilt))
    found = multiview([tmp_path / "a.npz", save(tmp_path / "b.npy", B)])
    assert "a.npz is sparse, dense it takes 0 MiB" in found.notes[0]
    assert found.notes[1].endswith("a.npz: 1 of 3 columns are constant")


@pytest.mark.parametrize("name", ["a.npy", "a.csv", "a.npz", "a.mat"])
def test_a_single_view_if_allowed(tmp_path, name):
    (found,) = load_views(save(tmp_path / name, A), allow_single=True).arrays
    np.testing.assert_array_equal(found, A)


def test_by_name_with_options_as_lists(tmp_path):
    path = save(tmp_path / "a.mat", {"X1": A, "X2": B, "X3": C, "Y": Y + 1})
    options = {"views": ["X3", "X1"], "label_key": "Y", "scaling": ["none", "none"]}
    found = data.load("multiview", path=str(path), **options)
    assert_views(found, C, A)
    assert found.labels.tolist() == [y + 1 for y in Y]


@pytest.mark.parametrize(
    ("name", "shapes", "classes"),
    [
        ("bdgp", [(2500, 1750), (2500, 79)], 5),
        ("mnist_usps", [(5000, 784)] * 2, 10),
        ("fashion_mv3", [(10000, 784)] * 3, 10),
        ("handwritten", [(2000, d) for d in (216, 76, 64, 6, 240, 47)], 10),
        ("ccv", [(6773, 20)] * 3, 20),
        ("wiki_img_text", [(2866, 128), (2866, 10)], 10),
        ("cub_img_text", [(600, 1024), (600, 300)], 10),
    ],
)
def test_real_files(name, shapes, classes):
    path = REAL / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    found = multiview(path, label_key="y", scaling="minmax")
    assert [view.shape for view in found.features.values()] == shapes
    assert set(found.labels) == set(range(classes))
    with np.load(path) as raw:
        for key, view in found.features.items():
            x = raw[key].reshape(len(view), -1).astype(np.float64)
            spread = np.ptp(x, axis=0)
            expected = np.where(spread > 0, (x - x.min(0)) / np.where(spread > 0, spread, 1), 0)
            np.testing.assert_allclose(view, expected, atol=1e-6)
