"""Tests what the page's script is given: rows, clusters, the map, and pictures within a budget."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from clustering_jax.report import pictures, rows
from clustering_jax.report.content import Content
from clustering_jax.report.layout import points_of
from clustering_jax.report.page import page
from clustering_jax.report.thumbnails import encoded
from tests.report import report_content as made
from tests.report.browser import data_of


def of(content: Content):
    return rows.of_content(content, content.assigned, points_of(content, "pca"), {})


def test_the_page_has_every_row_with_its_columns():
    content = made.content()
    found = data_of(page(content, "pca"))["rows"]
    assert found["id"] == content.dataset.ids and found["cluster"] == content.assigned.clusters.tolist()
    np.testing.assert_allclose(found["probability"], content.assigned.confidence, atol=0.0006)
    for name, column in content.assigned.columns.items():
        shown = [np.nan if v is None else v for v in found[name]]
        np.testing.assert_allclose(shown, column, atol=0.0006)


def test_coordinates_keep_the_shape_of_the_map():
    content = made.content()
    points, found = points_of(content, "pca"), of(content)
    for axis, name in enumerate("xy"):
        own = np.array(found["rows"][name])
        assert own.min() == 0 and own.max() == 10_000
        assert np.corrcoef(own, points.places[:, axis])[0, 1] > 0.9999
    assert sorted(label[0] for label in found["labels"]) == list(range(9))
    flat = of(content._replace(embedding=np.zeros_like(content.embedding)))
    assert set(flat["rows"]["x"]) == {0}


def test_the_numbers_on_the_map_are_apart_and_bounded():
    k, rng = 70, np.random.default_rng(0)
    places, clusters = rng.integers(4000, 6000, (700, 2)), np.arange(700) % k
    labels = np.array(rows._labels(places, clusters))
    assert len(labels) == rows.NUMBERED and ((labels[:, 1:] >= 0) & (labels[:, 1:] <= 10_000)).all()
    at = labels[:, 1:] / 10_000 * np.array(rows.MAP)
    assert (np.sqrt(((at[:, None] - at) ** 2).sum(2)) + 1e3 * np.eye(len(at))).min() > 12


def test_clusters_that_corrections_removed_are_not_there():
    content = made.content()
    result = {**content.result, "clusters": [0, 1, 2, 4, 5, 6, 7, 8]}
    found = of(content._replace(result=result, names=[["a"], [], ["b", "c"]], locked=[2]))
    assert [c["number"] for c in found["clusters"]] == result["clusters"]
    assert found["clusters"][2] == {**found["clusters"][2], "words": ["b", "c"], "locked": True, "number": 2}
    sizes = np.bincount(content.assigned.clusters, minlength=10)
    assert [c["size"] for c in found["clusters"]] == sizes[result["clusters"]].tolist()


def test_rows_at_the_top_of_a_tab_come_first():
    content = made.content()
    assigned, n = content.assigned, 400
    order = rows.by_interest(assigned)
    assert sorted(order.tolist()) == list(range(n))
    first = set(order[: 9 * 4].tolist())
    for cluster in range(9):
        own = np.flatnonzero(assigned.clusters == cluster)
        assert own[assigned.confidence[own].argmin()] in first
        assert own[assigned.columns["outlier"][own].argmax()] in first
        assert own[assigned.columns["typical"][own] == 1][0] in first


def test_of_many_rows_the_page_has_the_most_interesting_ones(monkeypatch):
    monkeypatch.setattr(rows, "MOST", 2000)
    content = made.large(n=5000, k=10)
    found = of(content)["rows"]
    ids = {name: i for i, name in enumerate(content.assigned.ids)}
    shown = {ids[name] for name in found["id"]}
    assert len(found["id"]) == len(shown) == 2000
    for cluster in range(10):
        own = np.flatnonzero(content.assigned.clusters == cluster)
        assert set(own[np.argsort(content.assigned.confidence[own])[:12]].tolist()) <= shown
    text = page(content, "pca")
    assert "This page has 2,000 of the 5,000 rows" in text


def test_text_of_the_data_cannot_end_the_script():
    content = made.content()
    ids = ["</script><script>alert(1)</script>", "caf\udce9.jpg", *content.assigned.ids[2:]]
    text = page(content._replace(assigned=content.assigned._replace(ids=ids)), "pca")
    assert data_of(text)["rows"]["id"][:2] == ids[:2]
    assert "<script>alert" not in text and text.encode("utf-8", "surrogateescape")


# --- Pictures


def decoded(address):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


@pytest.mark.parametrize(
    "shape, size, exact",
    [
        ((8, 8, 1), (8, 8), True),
        ((16, 12, 3), (16, 12), True),
        ((32, 32, 3), (32, 32), False),
        ((300, 200, 3), (96, 64), False),
    ],
)
def test_pictures_keep_their_shape_and_small_ones_every_pixel(shape, size, exact):
    images = (
        np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8) if exact else np.zeros((3, *shape), np.uint8)
    )
    found = encoded(images, [2, 0])
    assert sorted(found.rest) == [0, 2]
    picture = decoded(found.start + found.rest[2])
    assert picture.shape == (*size, 3) and found.sharp == (max(shape[:2]) <= 48)
    if exact:
        np.testing.assert_array_equal(picture, np.broadcast_to(images[2], (*size, 3)))


def test_pictures_stop_at_the_budget():
    images = np.random.default_rng(0).integers(0, 256, (3000, 8, 8, 1), np.uint8)
    found = encoded(images, range(2999, -1, -1), budget=100_000)
    length = sum(map(len, found.rest.values()))
    assert 100_000 < length < 200_000 and set(found.rest) == set(range(2999, 2999 - len(found.rest), -1))


def test_thumbnails_of_files_are_upright_and_survive_broken_ones(tmp_path):
    image = Image.fromarray(np.concatenate([np.zeros((400, 600, 3)), np.full((400, 600, 3), 255)]).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    image.save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    found = pictures.Thumbnails([tmp_path / "turned.jpg", tmp_path / "broken.jpg", tmp_path / "absent.jpg"])
    assert found[0].shape == found.shape[1:] and found[0][:40].mean() > 240 and found[0][-40:].mean() < 15
    assert (found[1] == 136).all() and (found[2] == 136).all()


def test_files_are_named_relative_to_the_page(tmp_path):
    (tmp_path / "my photos").mkdir()
    (tmp_path / "runs").mkdir()
    content = made.content("colour")._replace(folder=tmp_path / "my photos", workdir=tmp_path / "runs")
    assert of(content)["files"] == "../my%20photos/"
    assert of(content._replace(folder=None))["files"] == ""


def folder_config(path, embedded):
    folder = {"source": "folder", "path": str(path)}
    if embedded:
        return {
            "scored": {},
            "data": {"source": "embeddings", "split": "train"},
            "embed": {"splits": {"train": folder}},
        }
    return {"scored": {}, "data": folder}


@pytest.mark.parametrize("embedded", [False, True])
def test_the_folder_of_the_files_is_found(tmp_path, embedded):
    dataset = made.datasets("embeddings")
    assert pictures.folder_of(folder_config(tmp_path, embedded), dataset) == tmp_path
    assert pictures.folder_of(folder_config(tmp_path / "gone", embedded), dataset) is None
    assert pictures.folder_of({"scored": {}, "data": {"source": "digits"}}, dataset) is None
    assert pictures.folder_of(folder_config(tmp_path, embedded), None) is None
