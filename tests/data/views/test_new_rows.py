"""Tests new rows for a model trained on views: other files, some of the views, no mask or labels."""

import numpy as np
import pytest

from clustering_jax.data.views.dataset import multiview
from clustering_jax.data.views.new_rows import new_rows
from clustering_jax.errors import UserError
from tests.data.views.view_files import A, B, N, Y, save

MASK = np.array([[1, 1], [0, 1], [1, 1], [1, 0], [1, 1], [0, 1]])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of the training data, which is also the current directory of the user."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    for name, array in {"a.npy": A, "b.npy": B, "labels.npy": Y, "mask.npy": MASK}.items():
        save(tmp_path / "old" / name, array)
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path


def of(folder, path, numbers=(), **options):
    options = {"views": (), "label_key": "labels.npy", "mask_key": "mask.npy", **options}
    return new_rows(path, options, multiview(folder / "old", **options).scalings, numbers)


def rows(found):
    return {name: array for name, array in found.features.items() if name != "mask"}


def assert_rows(found, **expected):
    assert rows(found).keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found.features[name], array.astype(np.float32))


@pytest.mark.parametrize("views", [(), ("a.npy", "b.npy")], ids=["all files", "by name"])
def test_the_folder_that_was_trained_on(folder, views):
    found = of(folder, folder / "old", views=views)
    np.testing.assert_array_equal(found.features["mask"], MASK)
    assert found.labels is None and found.notes == ("3 of 6 objects lack a view",)


def test_missing_files_are_not_read_from_the_training_data(folder):
    """The current directory is the training folder. Its mask and its other view do not belong to the new rows."""
    save(folder / "new" / "a.npy", A[:4])
    save(folder / "new" / "b.npy", B[:4])
    found = of(folder, folder / "new")
    assert_rows(found, view0=A[:4], view1=B[:4])
    assert "mask" not in found.features
    assert found.notes == (f"{folder / 'new'} has no mask 'mask.npy': a view is missing only in rows of NaN",)
    (folder / "new" / "b.npy").unlink()
    with pytest.raises(UserError, match=r"new has no array 'b\.npy'"):
        of(folder, folder / "new", views=("a.npy", "b.npy"))


def test_single_files_are_matched_by_known_names(folder):
    """The files have any order, and include the mask and the labels."""
    files = {"b.npy": B[:2], "labels.npy": Y[:2], "a.npy": A[:2], "mask.npy": MASK[:2]}
    path = ",".join(str(save(folder / "new" / name, array)) for name, array in files.items())
    found = of(folder, path, views=("a.npy", "b.npy"))
    assert_rows(found, view0=np.where(MASK[:2, :1], A[:2], 0), view1=B[:2])
    np.testing.assert_array_equal(found.features["mask"], MASK[:2])


@pytest.mark.parametrize("numbers, given", [((1,), "y.npy"), ((0, 1), "x.npy,y.npy")])
def test_single_files_may_have_other_names(folder, numbers, given):
    arrays = {"x.npy": A[:2], "y.npy": B[:2]}
    path = ",".join(str(save(folder / "new" / name, arrays[name])) for name in given.split(","))
    found = of(folder, path, numbers, views=("a.npy", "b.npy"))
    assert_rows(found, **{f"view{v}": (A, B)[v][:2] for v in numbers})


@pytest.mark.parametrize("numbers", [(1, 0), (0, 0)])
def test_views_out_of_order_are_refused(folder, numbers):
    with pytest.raises(UserError, match=f"views {numbers[0]}, {numbers[1]}: name each view once, in increasing order"):
        of(folder, folder / "old", numbers)


def test_a_view_may_be_missing_in_all_new_rows(folder):
    absent = save(folder / "new" / "b.npz", {"view0": A[:2], "view1": np.full((2, 2), np.nan)})
    found = of(folder, absent, missing="nan")
    np.testing.assert_array_equal(found.features["mask"], [[True, False]] * 2)
    assert_rows(found, view0=A[:2], view1=np.zeros((2, 2)))


def test_one_array_of_a_file_of_several(folder):
    save(folder / "new" / "img.mat", {"img": A, "more": B})
    save(folder / "new" / "L.mat", {"L": Y[:, None], "names": Y})
    save(folder / "new" / "txt.npy", B)
    options = {"views": ("img.mat:img", "txt.npy"), "label_key": "L.mat:L"}
    found = multiview(folder / "new", **options)
    assert_rows(found, view0=A, view1=B)
    assert found.labels.tolist() == Y.tolist()
    assert_rows(new_rows(folder / "new", options, found.scalings), view0=A, view1=B)
    assert_rows(new_rows(folder / "new", options, found.scalings, [0]), view0=A)
    for views, expected in (
        (
            ("img.mat", "txt.npy"),
            r"img\.mat holds img, more: one of several files must hold one array, or views name it",
        ),
        (("img.mat:image", "txt.npy"), r"img\.mat holds img, more, no array 'image'"),
    ):
        with pytest.raises(UserError, match=expected):
            multiview(folder / "new", views=views)
    assert len(found.features["view0"]) == N


LAYOUTS = {
    "labels with the mask": (
        {"a.npy": A, "b.npy": B, "meta.mat": {"y": Y, "mask": MASK}},
        {"label_key": "meta.mat:y", "mask_key": "meta.mat:mask"},
    ),
    "labels with a view": (
        {"both.mat": {"img": A, "y": Y}, "txt.npy": B},
        {"views": ("both.mat:img", "txt.npy"), "label_key": "both.mat:y"},
    ),
    "a colon in a name": ({"a.npy": A, "b.npy": B, "y:1.npy": Y}, {"label_key": "y:1.npy"}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_training_files_give_the_training_rows(tmp_path, layout):
    files, options = LAYOUTS[layout]
    for name, array in files.items():
        save(tmp_path / name, array)
    trained = multiview(tmp_path, **options)
    found = new_rows(tmp_path, options, trained.scalings)
    assert trained.labels.tolist() == Y.tolist() and found.labels is None
    assert found.features.keys() == trained.features.keys()
    for name, array in trained.features.items():
        np.testing.assert_array_equal(found.features[name], array)
