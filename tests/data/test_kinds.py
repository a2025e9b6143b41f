"""The message about a wrong data source names the config for what the path holds."""

import numpy as np
import pytest
from PIL import Image

from clustering_jax.data.images.for_embedding import image_rows
from clustering_jax.data.kinds import FEATURES, IMAGES, PHOTOS, kind_of
from clustering_jax.data.sources import load
from clustering_jax.errors import UserError

ROWS, PICTURES = np.ones((5, 3), np.float32), np.zeros((5, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")
    (root / "photos" / "kind").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(root / "photos" / "kind" / "a.jpg")
    (root / "empty").mkdir()
    np.save(root / "rows.npy", ROWS)
    np.save(root / "images.npy", PICTURES)
    np.savez(root / "rows.npz", image=ROWS, labels=np.arange(5))
    np.savez(root / "images.npz", x=PICTURES, y=np.arange(5))
    np.savez(root / "views.npz", view0=ROWS, view1=ROWS)
    (root / "broken.npy").write_bytes(b"no array")
    return root


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("photos", PHOTOS),
        ("rows.npy", FEATURES),
        ("rows.npz", FEATURES),
        ("images.npy", IMAGES),
        ("images.npz", IMAGES),
        ("views.npz", ""),
        ("empty", ""),
        ("broken.npy", ""),
        ("nowhere", ""),
    ],
)
def test_kinds(paths, name, kind):
    assert kind_of(paths / name) == kind_of(str(paths / name)) == kind


@pytest.mark.parametrize(
    ("source", "name", "advice"),
    [
        ("embeddings", "photos", "holds photos: use --config=photos, or FeatureClustering"),
        ("embeddings", "images.npy", "--config=cc_arrays"),
        ("arrays", "photos", "--config=photos"),
        ("arrays", "rows.npy", "use --config=turtle_embeddings"),
        ("folder", "rows.npz", "--config=turtle_embeddings"),
        ("folder", "images.npz", "--config=cc_arrays"),
        ("multiview", "photos", "--config=photos"),
        ("multiview", "images.npy", "--config=cc_arrays"),
    ],
)
def test_the_right_config_is_named(paths, source, name, advice):
    more = {"size": 8} if source == "folder" else {}
    with pytest.raises(UserError) as error:
        load(source, path=str(paths / name), **more)
    assert advice in str(error.value) and "\n" not in str(error.value)


def test_photos_to_embed(paths):
    with pytest.raises(UserError, match=r"holds features \[n, d\]: use --config=turtle_embeddings"):
        image_rows("folder", path=paths / "rows.npz")


@pytest.mark.parametrize(
    ("source", "name"), [("embeddings", "broken.npy"), ("multiview", "rows.npy"), ("folder", "empty")]
)
def test_other_mistakes_get_no_advice(paths, source, name):
    more = {"size": 8} if source == "folder" else {}
    with pytest.raises(UserError) as error:
        load(source, path=str(paths / name), **more)
    assert "--config" not in str(error.value)
