"""Tests `FeatureClustering`: one array, several feature spaces, both heads, and errors."""

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone

from clustering_jax import encoders, metrics
from clustering_jax.data.views.dataset import multiview
from clustering_jax.errors import UserError
from clustering_jax.estimators import ContrastiveClustering, FeatureClustering
from tests.estimators.small import BOTH, FOUND, PAIRS, ROWS, TEMI, TURTLE, VIEWS, K, three
from tests.test_run_photos import ENCODER, write_photos

pytestmark = pytest.mark.filterwarnings("ignore:only", "ignore:batch size", "ignore:the batch")


@pytest.fixture(scope="module")
def spaces():
    return three(TURTLE, epochs=200).fit(VIEWS)


@pytest.mark.long
def test_rows_of_one_array_are_scaled_to_norm_1():
    """The norms of the rows have no effect, neither in training nor in prediction."""
    rows = ROWS * np.random.default_rng(0).uniform(0.5, 9.0, (len(ROWS), 1))
    model = three(TURTLE, epochs=200).fit(rows)
    assert metrics.scores(FOUND.labels, model.labels_)["acc"] > 0.9 and model.n_clusters_ == K
    np.testing.assert_array_equal(model.predict(5 * ROWS), model.labels_)
    np.testing.assert_allclose(model.transform(rows), ROWS * ROWS.shape[1] ** 0.5, rtol=1e-4, atol=1e-5)
    assert model.n_iter_ == 200


@pytest.mark.long
def test_several_spaces_keep_their_norms_and_may_be_missing(spaces):
    assert metrics.scores(PAIRS.labels, spaces.labels_)["acc"] > 0.9
    np.testing.assert_array_equal(spaces.predict(VIEWS), spaces.labels_)
    means = [np.linalg.norm(view, axis=1).mean() for view in VIEWS]
    scaled = [view * view.shape[1] ** 0.5 / mean for view, mean in zip(VIEWS, means, strict=True)]
    np.testing.assert_allclose(spaces.transform(VIEWS), np.concatenate(scaled, axis=1), rtol=1e-4, atol=1e-5)
    one = spaces.predict_proba([None, VIEWS[1]])
    np.testing.assert_allclose(one.sum(1), 1, rtol=1e-5)
    assert not np.allclose(one, spaces.predict_proba(VIEWS), atol=1e-3)
    columns = three(TURTLE, epochs=200, view_widths=2).fit(BOTH)
    np.testing.assert_array_equal(columns.labels_, spaces.labels_)


@pytest.mark.long
def test_rows_without_a_feature_space():
    views = [view.copy() for view in VIEWS]
    views[0][:10] = np.nan
    model = three(TURTLE, missing="nan", epochs=200).fit(views)
    assert metrics.scores(PAIRS.labels, model.labels_)["acc"] > 0.85
    dataset = multiview({"view0": views[0], "view1": views[1]}, missing="nan")
    assert dataset.features["mask"].sum() == 2 * len(views[0]) - 10


@pytest.mark.long
def test_temi():
    labels = np.arange(47) % K
    rows = 3 * np.eye(K, 6)[labels] + np.random.default_rng(0).normal(0, 0.3, (47, 6))
    model = three(TEMI, epochs=300).fit(rows)
    assert metrics.scores(labels, model.labels_)["acc"] > 0.9
    np.testing.assert_array_equal(model.predict(rows), model.labels_)
    np.testing.assert_allclose(np.linalg.norm(model.transform(rows), axis=1), 1, rtol=1e-4)


@pytest.mark.long
def test_save_and_load(spaces, tmp_path):
    """`load` takes the head from the run, also if the command line wrote the run."""
    spaces.save(tmp_path / "turtle")
    np.testing.assert_array_equal(FeatureClustering.load(tmp_path / "turtle").predict(VIEWS), spaces.labels_)
    model = three(TEMI, epochs=1, workdir=tmp_path / "temi").fit(ROWS)
    loaded = FeatureClustering.load(tmp_path / "temi")
    assert loaded.head == "temi"
    np.testing.assert_array_equal(loaded.predict(ROWS), model.labels_)


@pytest.mark.parametrize(
    "params, X, message",
    [
        ({"head": "turtel"}, ROWS, "head is 'turtel'"),
        ({"head": "temi"}, VIEWS, "one feature space"),
        ({"head": "temi", "view_widths": 2}, BOTH, "one feature space"),
        ({}, np.zeros((20, 3)), "row 0 is all zeros"),
        ({}, "nowhere.npz", "does not exist"),
    ],
    ids=str,
)
def test_refuses(params, X, message):
    with pytest.raises(UserError, match=message):
        clone(TURTLE).set_params(settings=None, **params).fit(X)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder)
    options = {"epochs": 60, "random_state": 0, "settings": {"data.labels_from_folders": True}}
    return folder, FeatureClustering(3, encoder=ENCODER, **options).fit(folder)


@pytest.mark.long
def test_a_folder_of_photos_with_an_encoder(photos, tmp_path):
    folder, model = photos
    assert len(model.labels_) == 24 and model.result_["scores"]["acc"] > 0.6
    np.testing.assert_array_equal(model.predict(folder), model.labels_)
    model.save(tmp_path / "saved")
    np.testing.assert_array_equal(FeatureClustering.load(tmp_path / "saved").predict(folder), model.labels_)


@pytest.mark.long
def test_images_in_memory_are_embedded_as_files_are(photos):
    folder, model = photos
    images = np.stack([np.asarray(Image.open(folder / name)) for name in model.ids_])
    np.testing.assert_allclose(model.predict_proba(images), model.predict_proba(folder), atol=1e-5)
    same = FeatureClustering(3, encoder=ENCODER, epochs=60, random_state=0).fit(images)
    assert metrics.scores(same.labels_, model.labels_)["acc"] == 1


@pytest.mark.long
def test_the_encoder_is_lite0_where_none_is_named(monkeypatch, tmp_path):
    """Features need no encoder, photos and images do."""
    monkeypatch.setitem(encoders.NAMES, "lite0", lambda: encoders.load_encoder(ENCODER))
    write_photos(tmp_path / "photos")
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "one.JPG", "jpeg")
    model = FeatureClustering(2, epochs=1).fit(tmp_path / "photos")
    assert len(model.labels_) == 25 and model.predict(np.zeros((2, 8, 8, 3), np.uint8)).shape == (2,)
    assert model._predictor.config["embed"]["encoder"] == "lite0"


@pytest.mark.long
def test_a_run_of_features_takes_no_images(spaces):
    with pytest.raises(UserError, match="X holds images, but the run was trained on features"):
        spaces.predict(np.zeros((4, 8, 8, 3), np.uint8))


def test_features_are_no_images():
    with pytest.raises(UserError, match=r"these are features \[n, d\], .* FeatureClustering"):
        ContrastiveClustering(2).fit(np.zeros((8, 5), np.float32))
