"""Values that were lost without a word: by rounding, by their order, by their shape, by their depth of bits."""

import numpy as np
import pytest
from PIL import Image

from clustering_jax import choose_k, data
from clustering_jax.data.images.arrays import as_images
from clustering_jax.data.images.folder import folder
from clustering_jax.data.views import new_rows as new_views
from clustering_jax.data.views.pca import apply_pca, fit_pca
from clustering_jax.errors import UserError
from clustering_jax.estimators import ContrastiveClustering, MultiViewClustering
from clustering_jax.inference import new_rows

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(60, 5)), RNG.normal(size=(60, 7))


@pytest.mark.parametrize("size", [1e20, 1e-25, 1e37, 1e-37])
def test_principal_components_of_large_and_small_numbers(size):
    """Squares of them are infinite or 0 in float32."""
    plain = fit_pca(A.astype(np.float32), 4)
    expected = apply_pca(plain, A.astype(np.float32))
    view = (A * size).astype(np.float32)
    found = apply_pca(fit_pca(view, 4), view)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("size", [1e20, 1e-25])
def test_pairs_of_large_and_small_numbers(size):
    plain, other = (data.load("multiview_pca", path={"view0": A * f, "view1": B * f}).features for f in (1, size))
    np.testing.assert_allclose(other["view0"], plain["view0"], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("size", [1e20, 1e-25, 1e37])
def test_choose_k_of_large_and_small_numbers(size):
    plain = choose_k.principal(A.astype(np.float32), range(2, 5))
    np.testing.assert_allclose(
        choose_k.principal((A * size).astype(np.float32), range(2, 5)), plain, rtol=2e-3, atol=2e-3
    )


@pytest.mark.parametrize("scaling", ["none", "pixels"])
def test_views_whose_distances_would_overflow(scaling):
    view = B.copy()
    view[3, 2] = 1e20
    with pytest.raises(UserError, match=r"view1 row 3, column 2 is .*e\+\d+ after scaling, .*: divide the view by"):
        data.load("multiview", path={"view0": A, "view1": view}, scaling=scaling)
    scaled = [data.load("multiview", path={"view0": A, "view1": B * f}, scaling="standard") for f in (1, 1e20)]
    np.testing.assert_allclose(scaled[1].features["view1"], scaled[0].features["view1"], rtol=1e-5)
    with pytest.raises(UserError, match="overflow float32"):
        new_views.new_rows({"view0": A, "view1": B * 1e20}, {}, scaled[0].scalings)


def test_numbers_that_are_one_in_float32():
    times = 1.7e9 + np.arange(60.0)[:, None] % 50
    with pytest.raises(UserError, match="everywhere in float32: set scaling"):
        data.load("multiview", path={"view0": times, "view1": B})
    found = data.load("multiview", path={"view0": np.c_[A, times], "view1": B})
    assert any("1 of 6 columns are one number in float32" in note for note in found.notes)
    scaled = data.load("multiview", path={"view0": times, "view1": B}, scaling="minmax")
    assert scaled.features["view0"].max() == 1 and not scaled.notes


class Fitted(MultiViewClustering):
    """An estimator that has seen data, without a training."""

    def fit(self, X, y=None):
        self.dataset = self._dataset(X, self._config())
        scalings = self.dataset.scalings
        self._predictor = type("P", (), {"scalings": scalings, "config": {"data": {}}, "shapes": {}})()
        return self


def test_views_of_a_dictionary_go_by_their_names():
    fitted = Fitted(3).fit({"img": A, "txt": B})
    expected = fitted._features({"img": A, "txt": B})
    found = fitted._features({"txt": B, "img": A})
    assert {name: rows.shape for name, rows in found.items()} == {"view0": (60, 5), "view1": (60, 7)}
    for name, rows in expected.items():
        np.testing.assert_array_equal(found[name], rows)
    assert "view0" not in fitted._features({"txt": B})
    with pytest.raises(UserError, match=r"view 'text'.*did you mean 'txt'"):
        fitted._features({"img": A, "text": B})


def test_a_dictionary_after_a_list_has_its_order():
    found = Fitted(3).fit([A, B])._features({"b": A, "a": B})
    assert [rows.shape[1] for rows in found.values()] == [5, 7]


def test_masked_entries_are_not_read():
    masked = np.ma.array(A, mask=False)
    masked[3, 1] = np.ma.masked
    with pytest.raises(UserError, match="row 3, column 1 is nan"):
        Fitted(3).fit([masked, B])


PICTURE = RNG.integers(0, 256, (20, 24, 3), np.uint8)


def test_one_colour_picture_is_not_many_grey_ones(tmp_path):
    for array in (PICTURE, PICTURE / 255, np.zeros((20, 24, 4), np.uint8)):
        with pytest.raises(UserError, match="may be one picture"):
            as_images(array, "X")
        np.save(tmp_path / "one.npy", array)
        for read in (
            lambda: data.load("arrays", path=str(tmp_path / "one.npy")),
            lambda: list(new_rows.iter_images(tmp_path / "one.npy", (20, 24, 3), 8)),
            lambda array=array: ContrastiveClustering().fit(array),
        ):
            with pytest.raises(UserError, match="may be one picture"):
                read()
    assert as_images(PICTURE[None], "X").shape == (1, 20, 24, 3)
    assert as_images(PICTURE[..., :1].transpose(2, 0, 1), "X").shape == (1, 20, 24, 1)


def test_pictures_of_16_bits_do_not_become_black(tmp_path):
    Image.fromarray(PICTURE[..., 0].astype(np.uint16) * 257).save(tmp_path / "full.png")
    found = folder(tmp_path, size=20, channels=1).features["image"]
    assert found.max() > 200
    Image.fromarray(PICTURE[..., 0].astype(np.uint16)).save(tmp_path / "low.png")
    with pytest.raises(UserError, match=r"low\.png .*below 256"):
        folder(tmp_path, size=20, channels=1)
    assert folder(tmp_path, size=20, channels=1, on_error="skip").ids == ["full.png"]


def test_constant_pictures_are_refused_as_constant_views_are(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((6, 5, 5), np.uint8))
    for i in range(4):
        Image.new("L", (9, 9), 7).save(tmp_path / f"{i}.png")
    for read in (
        lambda: data.load("arrays", path=str(tmp_path / "a.npy")),
        lambda: folder(tmp_path, size=8),
        lambda: ContrastiveClustering().fit(np.full((6, 5, 5), 0.5)),
    ):
        with pytest.raises(UserError, match="every pixel of every picture is"):
            read()
