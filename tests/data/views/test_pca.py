"""Compares principal components of views with eigenvectors of the covariance; tests new and missing rows, files."""

import json

import numpy as np
import pytest
import scipy.io

from clustering_jax import data
from clustering_jax.data.views.checked import ReadOptions, load_views
from clustering_jax.data.views.dataset import apply_scalings
from clustering_jax.data.views.pca import apply_pca, common_width, fit_pca, project
from clustering_jax.errors import UserError

RNG = np.random.default_rng(0)
A, B = (RNG.normal(size=(40, d)) @ RNG.normal(size=(d, d)) + 3 for d in (9, 6))
Y = np.arange(40) % 3 + 1


def test_projection_uses_the_leading_eigenvectors_and_one_scale():
    stats = fit_pca(A, 4)
    rows = apply_pca(stats, A)
    centred = A - A.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / 39)
    expected = centred @ vectors[:, ::-1][:, :4] / np.sqrt(values[-4:].mean())
    np.testing.assert_allclose(abs(rows), abs(expected), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rows.var(0, ddof=1).mean(), 1, rtol=1e-5)
    assert rows.dtype == np.float32 and rows.var(0)[0] > 2 * rows.var(0)[3]


@pytest.mark.parametrize("width, expected", [(100, 6), (4, 4)])
def test_common_width(width, expected):
    assert common_width([A, B], width) == expected
    assert common_width([A[:3], B], width) == 2


@pytest.fixture
def folder(tmp_path):
    """A folder with the layout of the authors' data sets."""
    for name, array in (("img", A), ("txt", B), ("L", Y[:, None])):
        scipy.io.savemat(tmp_path / f"{name}.mat", {name: array})
    return tmp_path


def load(path, **options):
    return data.load("multiview_pca", path=path, views=("img.mat", "txt.mat"), **options)


def test_files_in_the_layout_of_the_authors(folder):
    found = load(folder, label_key="L.mat")
    assert [found.features[f"view{v}"].shape for v in range(2)] == [(40, 6), (40, 6)]
    np.testing.assert_array_equal(found.labels, Y)
    np.testing.assert_allclose(found.features["view0"], apply_pca(fit_pca(A.astype(np.float32), 6), A), atol=1e-4)


@pytest.mark.parametrize("scaling", ["none", "standard"])
def test_new_rows_are_projected_as_the_training_rows(folder, scaling):
    found = load(folder, scaling=scaling, width=3)
    kept = json.loads(json.dumps(found.scalings))
    again = project(apply_scalings(load_views(folder, ReadOptions(("img.mat", "txt.mat"))), kept))
    for name in ("view0", "view1"):
        np.testing.assert_array_equal(again.features[name], found.features[name], strict=True)
    plain = data.load("multiview", path=folder, views=("img.mat", "txt.mat"))
    assert project(plain).features["view0"] is plain.features["view0"]


def test_missing_rows_have_no_effect_and_stay_zero(tmp_path):
    array = np.where(np.arange(40)[:, None] < 30, A, np.nan)
    np.savez(tmp_path / "a.npz", view0=array, view1=B)
    found = data.load("multiview_pca", path=tmp_path / "a.npz", missing="nan", width=5)
    assert found.features["mask"][:, 0].sum() == 30 and not found.features["view0"][30:].any()
    rows = A[:30].astype(np.float32)
    np.testing.assert_allclose(found.features["view0"][:30], apply_pca(fit_pca(rows, 5), rows), atol=1e-4)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_constant_view_has_scale_one():
    assert fit_pca(np.ones((5, 3)), 2)["scale"] == 1


def test_width_0_is_refused(folder):
    with pytest.raises(UserError, match="width is 0"):
        load(folder, width=0)


def test_a_view_of_one_row_has_no_components(tmp_path):
    mask = np.ones((40, 2), int)
    mask[1:, 1] = 0
    np.savez(tmp_path / "a.npz", view0=A, view1=B, mask=mask)
    with pytest.raises(UserError, match=r"a\.npz: only one row has view1, .*leave the view out"):
        data.load("multiview_pca", path=tmp_path / "a.npz", mask_key="mask")
