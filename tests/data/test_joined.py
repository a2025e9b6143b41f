"""Rows of a data set with rows that were added later."""

import numpy as np
import pytest

from clustering_jax import data
from clustering_jax.data.base import Dataset
from clustering_jax.data.images.streaming import LazyArray
from clustering_jax.data.joined import joined_rows, picked, write_added
from clustering_jax.errors import UserError

VALUES = np.arange(24, dtype=np.float32).reshape(6, 4) + 1


def dataset(rows, labels=True, prefix=""):
    ids = [f"{prefix}{i}" for i in rows]
    return Dataset({"image": VALUES[rows]}, ids, np.array(rows) if labels else None, "a", "all")


def test_added_rows_come_behind_the_first(tmp_path):
    np.savez(tmp_path / "first.npz", image=VALUES, label=np.arange(6))
    both = joined_rows(dataset([0, 2, 3]), dataset([1, 5], labels=False, prefix="more:"))
    assert both.ids == ["0", "2", "3", "more:1", "more:5"] and both.labels.tolist() == [0, 2, 3, -1, -1]
    write_added(tmp_path / "added", both, 3)
    first = {"source": "embeddings", "path": str(tmp_path / "first.npz"), "label_key": "label"}
    read = data.load("joined", first=first, added=str(tmp_path / "added"))
    assert read.ids == both.ids and read.labels.tolist() == both.labels.tolist()
    rows = VALUES[[0, 2, 3]] / np.linalg.norm(VALUES[[0, 2, 3]], axis=1, keepdims=True)
    np.testing.assert_allclose(read.features["image"], np.concatenate([rows, VALUES[[1, 5]]]), rtol=1e-6)
    (tmp_path / "added" / "image.npy").write_bytes((tmp_path / "added" / "image.npy").read_bytes()[:140])
    with pytest.raises(UserError, match="ends early"):
        data.load("joined", first=first, added=str(tmp_path / "added"))
    with pytest.raises(UserError, match="has no setting 'adedd'"):
        data.load("joined", first=first, adedd="")


def test_rows_are_picked_by_their_ids():
    some = picked(dataset(list(range(6))), ["4", "1"], "run")
    assert some.ids == ["4", "1"] and some.labels.tolist() == [4, 1]
    np.testing.assert_array_equal(some.features["image"], VALUES[[4, 1]])
    with pytest.raises(UserError, match="not that of run: it lacks the row '9'"):
        picked(some, ["4", "9"], "run")


def test_other_features_are_refused():
    with pytest.raises(UserError, match="rows of the same kind"):
        joined_rows(dataset([0]), dataset([1])._replace(features={"image": VALUES[:1, :3]}))


def test_streamed_images_stay_on_the_disk():
    pytest.importorskip("grain", reason="needs the extra [stream]")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 2, 2, 3), np.uint8)
    lazy = LazyArray((4, 2, 2, 3), lambda rows: pixels[rows])
    first = Dataset({"image": lazy}, list("abcd"), None, "a", "all")
    some = picked(first, ["d", "a", "b"], "run")
    both = joined_rows(some, Dataset({"image": pixels[4:]}, ["e", "f"], None, "a", "all")).features["image"]
    assert isinstance(both, LazyArray) and both.shape == (5, 2, 2, 3)
    np.testing.assert_array_equal(both[np.array([4, 0, 3, 2])], pixels[[5, 3, 4, 1]])
    np.testing.assert_array_equal(both[np.array([3, 4])], pixels[[4, 5]])


@pytest.mark.parametrize("masked", [0, 1])
def test_rows_without_a_mask_have_all_views(masked):
    parts = [dataset([0, 1]), dataset([2, 3, 4], prefix="more:")]
    mask = np.eye(parts[masked].num_examples, 3, dtype=bool)
    parts[masked] = parts[masked]._replace(features={**parts[masked].features, "mask": mask})
    wanted = [np.ones((2, 3), bool), np.ones((3, 3), bool)]
    wanted[masked] = mask
    np.testing.assert_array_equal(joined_rows(*parts).features["mask"], np.concatenate(wanted))
