"""Images that are read one by one equal those of the sources that load all images; errors have one line."""

import numpy as np
import pytest
from PIL import Image

from clustering_jax import data
from clustering_jax.data.images import folder as images
from clustering_jax.data.images.for_embedding import image_rows
from clustering_jax.errors import UserError
from tests.data.images.test_folder import picture, save


def plain(image):
    return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes with different sizes and modes. The last image is stored rotated, with the EXIF entry for it."""
    root = tmp_path_factory.mktemp("images") / "photos"
    save(root / "b" / "10.png", picture(0))
    save(root / "b" / "9.png", picture(1, 30, 40, channels=1))
    save(root / "a" / "x.bmp", picture(2, 5, 7))
    exif = Image.Exif()
    exif[0x0112] = 6
    save(root / "b" / "z.png", picture(3, 8, 20), exif=exif)
    return root


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Three files. The second one is not an image."""
    root = tmp_path_factory.mktemp("images") / "broken"
    for name in ("0.png", "2.png"):
        save(root / name, picture(0))
    (root / "1.png").write_text("text")
    return root


def test_a_folder_is_read_as_it_is_loaded(photos):
    rows = image_rows("folder", path=str(photos), labels_from_folders=True)
    whole = images.folder(photos, size=6, labels_from_folders=True)
    assert rows.ids == whole.ids == ["a/x.bmp", "b/9.png", "b/10.png", "b/z.png"]
    assert rows.labels.tolist() == whole.labels.tolist() == [0, 1, 1, 1]
    assert (rows.name, rows.split, rows.notes, rows.skip) == ("photos", "all", (), False)
    found = rows.batch(0, 4, plain)
    assert [image.shape for image in found] == [(5, 7, 3), (30, 40, 3), (12, 10, 3), (20, 8, 3)]
    np.testing.assert_array_equal(found[0], picture(2, 5, 7))
    np.testing.assert_array_equal(found[1], np.repeat(picture(1, 30, 40, channels=1)[..., None], 3, 2))
    np.testing.assert_array_equal(found[3], np.rot90(picture(3, 8, 20), -1))


def test_a_batch_is_a_slice_in_order(photos):
    rows = image_rows("folder", path=photos)
    whole = rows.batch(0, 4, plain)
    assert rows.labels is None and rows.batch(2, 2, plain) == []
    for image, expected in zip(rows.batch(1, 3, plain), whole[1:3], strict=True):
        np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(rows.read(2, plain), whole[2])


def test_an_unreadable_image_is_an_error_or_reported(broken):
    rows = image_rows("folder", path=broken)
    refuses("1.png is not an image; remove it, or set on_error to skip", lambda: rows.batch(0, 3, plain))
    assert len(rows.batch(2, 3, plain)) == 1
    rows = image_rows("folder", path=broken, on_error="skip")
    found = rows.batch(0, 3, plain)
    assert rows.ids == ["0.png", "1.png", "2.png"] and rows.skip
    assert "1.png is not an image" in found[1]
    np.testing.assert_array_equal(found[0], picture(0))
    np.testing.assert_array_equal(found[2], picture(0))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_another_source(channels):
    options = {"n": 5, "size": 4, "channels": channels, "num_clusters": 2}
    rows, whole = image_rows("synthetic", **options), data.load("synthetic", **options)
    assert (rows.ids, rows.name, rows.split) == (whole.ids, whole.name, whole.split)
    np.testing.assert_array_equal(rows.labels, whole.labels)
    expected = np.repeat(whole.features["image"], 4 - channels, 3)[..., :3]
    np.testing.assert_array_equal(rows.batch(0, 5, plain), expected)


def refuses(expected, function):
    with pytest.raises(UserError, match=expected) as error:
        function()
    assert "\n" not in str(error.value)


WRONG = {
    "no source": ({}, "unknown data source ''"),
    "unknown source": ({"source": "foldr"}, "did you mean 'folder'"),
    "unknown setting": ({"source": "folder", "path": ".", "sice": 3}, "no setting 'sice'"),
    "of the loading folder": ({"source": "folder", "path": ".", "size": 3}, "no setting 'size'"),
    "no path": ({"source": "folder"}, "data source 'folder' needs the setting 'path'"),
    "missing folder": ({"source": "folder", "path": "absent"}, "absent"),
    "empty path": ({"source": "folder", "path": ""}, "''"),
    "policy": ({"source": "folder", "path": ".", "on_error": "ignore"}, "'error' or 'skip'"),
    "no images": ({"source": "planted"}, "data source 'planted' has no images to embed"),
    "embeddings": ({"source": "planted_embeddings"}, "'planted_embeddings' has no images to embed"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_errors(wrong):
    options, message = WRONG[wrong]
    refuses(message, lambda: image_rows(**options))


def test_the_count_is_checked(photos):
    refuses("4 images", lambda: image_rows("folder", path=photos, expected_count=5))
