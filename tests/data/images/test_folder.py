"""Tests folders, NumPy files and generated sets: order, ids, labels, modes, streams, and errors of users."""

import os
import zipfile

import numpy as np
import pytest
from PIL import Image
from sklearn.cluster import KMeans

from clustering_jax import data, metrics
from clustering_jax.data.base import batch_indices, epoch_permutation
from clustering_jax.data.images import arrays, synsets
from clustering_jax.data.images import folder as images
from clustering_jax.errors import UserError

KNOWN = [5, 8, 9, 6, 3, 7, 0, 1, 2, 4]


def picture(seed, height=12, width=10, channels=3):
    """A smooth image, which resizing and JPEG change little."""
    rng = np.random.default_rng(seed)
    corners = Image.fromarray(rng.integers(0, 256, (2, 2, channels), np.uint8).squeeze())
    return np.asarray(corners.resize((width, height), Image.Resampling.BICUBIC))


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def nested(tmp_path):
    """Class b with 2 images, one of them a level deeper; a10 and a9 with one image each; mixed types and sizes."""
    root = tmp_path / "photos"
    save(root / "b" / "2.png", picture(0))
    save(root / "b" / "deep" / "1.bmp", picture(1, 30, 40))
    save(root / "a10" / "x.JPG", picture(2, 5, 5))
    save(root / "a9" / "x.webp", picture(3))
    return root


def snapshot(root):
    return sorted((str(p), p.stat().st_size) for p in root.rglob("*"))


class TestFolder:
    def test_natural_order_ids_and_no_labels(self, nested):
        found = images.folder(nested, size=8)
        assert found.ids == ["a9/x.webp", "a10/x.JPG", "b/2.png", "b/deep/1.bmp"]
        assert found.features["image"].shape == (4, 8, 8, 3)
        assert found.features["image"].dtype == np.uint8
        assert (found.labels, found.name, found.notes, found.num_examples) == (None, "photos", (), 4)

    def test_labels_from_folders(self, nested):
        assert images.folder(nested, size=8, labels_from_folders=True).labels.tolist() == [0, 1, 2, 2]

    def test_flat_numbers_by_value(self, tmp_path):
        for number in (10, 9, 100, 1):
            save(tmp_path / f"img_{number}.png", picture(number))
        expected = [f"img_{n}.png" for n in (1, 9, 10, 100)]
        assert images.folder(tmp_path, size=4).ids == expected

    def test_rows_are_the_pictures(self, tmp_path):
        for i in range(40):
            save(tmp_path / f"{i}.png", np.full((3, 3, 3), 5 * i, np.uint8))
        rows = images.folder(tmp_path, size=2).features["image"]
        assert rows[:, 0, 0, 0].tolist() == [5 * i for i in range(40)]

    def test_resize_is_antialiased(self, tmp_path):
        stripes = np.zeros((64, 64, 3), np.uint8)
        stripes[:, ::2] = 255
        save(tmp_path / "a.png", stripes)
        assert np.ptp(images.folder(tmp_path, size=8).features["image"].astype(int)) < 12

    def test_same_size_is_bit_equal(self, tmp_path):
        save(tmp_path / "a.png", picture(0, 16, 16))
        assert (images.folder(tmp_path, size=16).features["image"][0] == picture(0, 16, 16)).all()

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation(self, tmp_path, orientation):
        pixels = picture(5, 16, 16)
        turns = {
            1: pixels,
            2: pixels[:, ::-1],
            3: pixels[::-1, ::-1],
            4: pixels[::-1],
            5: np.swapaxes(pixels, 0, 1),
        }
        turns[6], turns[8] = np.rot90(pixels, -1), np.rot90(pixels)
        turns[7] = np.swapaxes(pixels[::-1, ::-1], 0, 1)
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(tmp_path / "a.png", pixels, exif=exif)
        assert (images.folder(tmp_path, size=16).features["image"][0] == turns[orientation]).all()

    def test_hidden_and_other_files_are_passed_over(self, nested):
        (nested / "notes.txt").write_text("x")
        (nested / "b" / ".hidden.png").write_text("x")
        found = images.folder(nested, size=4)
        assert found.num_examples == 4
        assert len(found.notes) == 1
        assert "1 files" in found.notes[0]
        assert "notes.txt" in found.notes[0]

    def test_links_are_followed_but_not_in_circles(self, nested, tmp_path):
        subset = tmp_path / "subset"
        subset.mkdir()
        os.symlink(nested / "b", subset / "c")
        os.symlink(subset, subset / "circle")
        assert images.folder(subset, size=4).ids == ["c/2.png", "c/deep/1.bmp"]

    def test_nothing_is_written(self, nested):
        before = snapshot(nested)
        images.folder(nested, size=4)
        assert snapshot(nested) == before

    def test_grey(self, nested):
        rows = images.folder(nested, size=8, channels=1).features["image"]
        expected = Image.fromarray(picture(0)).convert("L").resize((8, 8), Image.Resampling.BILINEAR)
        assert (rows[2, ..., 0] == np.asarray(expected)).all()


def modes():
    """``name: (image, expected RGB image)``."""
    rgb, grey = picture(7, 8, 8), picture(8, 8, 8, channels=1)
    triple = np.repeat(grey[..., None], 3, 2)
    alpha = np.dstack([rgb, np.tile(np.arange(0, 256, 32, dtype=np.uint8), (8, 1))])
    palette = Image.fromarray(rgb).quantize(16)
    clear = palette.copy()
    clear.info["transparency"] = bytes([0, 128])
    deep = (grey.astype(np.uint16) << 8) + 200
    bits = Image.fromarray(grey).convert("1", dither=Image.Dither.NONE)
    return {
        "grey": (Image.fromarray(grey), triple),
        "rgba": (Image.fromarray(alpha), rgb),
        "grey and alpha": (
            Image.fromarray(alpha).convert("LA"),
            np.asarray(Image.fromarray(rgb).convert("L").convert("RGB")),
        ),
        "palette": (palette, np.asarray(palette.convert("RGB"))),
        "palette, transparent": (clear, np.asarray(palette.convert("RGB"))),
        "16-bit grey": (Image.fromarray(deep), triple),
        "1 bit": (bits, np.repeat(np.where(grey > 127, 255, 0)[..., None], 3, 2)),
    }


@pytest.mark.parametrize("mode", modes())
@pytest.mark.filterwarnings("error")
def test_modes_become_rgb(tmp_path, mode):
    image, expected = modes()[mode]
    image.save(tmp_path / "a.png")
    assert (images.folder(tmp_path, size=8).features["image"][0] == expected).all()


class TestUnreadable:
    @pytest.fixture
    def broken(self, tmp_path):
        """Five images. Images 1 and 3 are broken."""
        for i in range(5):
            save(tmp_path / f"{i}.png", np.full((9, 9, 3), 50 * i, np.uint8))
        whole = (tmp_path / "3.png").read_bytes()
        (tmp_path / "1.png").write_bytes(b"no image")
        (tmp_path / "3.png").write_bytes(whole[: len(whole) // 2])
        return tmp_path

    def test_error_names_the_first(self, broken):
        with pytest.raises(UserError, match=r"1\.png is not an image.*on_error"):
            images.folder(broken, size=4)

    def test_skip_keeps_the_others_and_says_how_many(self, broken):
        found = images.folder(broken, size=4, on_error="skip")
        assert found.ids == ["0.png", "2.png", "4.png"]
        assert found.features["image"][:, 0, 0, 0].tolist() == [0, 100, 200]
        assert len(found.notes) == 1
        assert "skipped 2 unreadable of 5" in found.notes[0]
        assert "1.png" in found.notes[0]

    def test_skip_keeps_labels_with_their_rows(self, tmp_path):
        for name, value in (("a/1", 10), ("a/2", 20), ("b/1", 30)):
            save(tmp_path / f"{name}.png", np.full((4, 4, 3), value, np.uint8))
        (tmp_path / "a" / "1.png").write_bytes(b"")
        found = images.folder(tmp_path, size=4, on_error="skip", labels_from_folders=True)
        assert found.labels.tolist() == [0, 1]
        assert found.features["image"][:, 0, 0, 0].tolist() == [20, 30]

    def test_skip_across_chunks_equals_one_chunk(self, broken, monkeypatch):
        whole = images.folder(broken, size=4, on_error="skip")
        monkeypatch.setattr(images, "CHUNK", 2)
        parts = images.folder(broken, size=4, on_error="skip")
        assert parts.ids == whole.ids
        assert (parts.features["image"] == whole.features["image"]).all()

    @pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "bmp", "tiff", "webp"])
    def test_every_truncated_type(self, tmp_path, kind):
        rng = np.random.default_rng(0)
        save(tmp_path / f"a.{kind}", rng.integers(0, 256, (40, 40, 3), np.uint8))
        whole = (tmp_path / f"a.{kind}").read_bytes()
        (tmp_path / f"a.{kind}").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=rf"a\.{kind}"):
            images.folder(tmp_path, size=4)

    def test_float_pixels(self, tmp_path):
        Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tif")
        with pytest.raises(UserError, match=r"a\.tif can't be read .*32-bit"):
            images.folder(tmp_path, size=4)


class TestClasses:
    @pytest.fixture
    def root(self, tmp_path):
        """The layout of Tiny-ImageNet with 3 classes of 2 images, and one validation image."""
        for name in ("n01", "n02", "n03"):
            for i in range(2):
                save(tmp_path / "train" / name / "images" / f"{name}_{i}.JPEG", picture(i))
        save(tmp_path / "val" / "images" / "v.JPEG", picture(9))
        return tmp_path

    @pytest.mark.parametrize("below", ["", "train"])
    def test_only_the_listed_classes_are_kept(self, root, below):
        found = images.folder(root / below, size=4, classes=["n03", "n01"], expected_count=4, labels_from_folders=True)
        assert [i.removeprefix("train/") for i in found.ids[:1]] == ["n01/images/n01_0.JPEG"]
        assert found.labels.tolist() == [0, 0, 1, 1]

    def test_missing_classes_are_named(self, root):
        with pytest.raises(UserError, match=r"lacks class folders of the 4 given: n04, n05$"):
            images.folder(root, size=4, classes=["n01", "n04", "n05", "n02"])

    def test_wrong_count_names_the_class(self, root):
        (root / "train" / "n02" / "images" / "n02_1.JPEG").unlink()
        with pytest.raises(UserError, match=r"holds 5 images, expected 6, 2 of each class: n02 has 1"):
            images.folder(root, size=4, classes=["n01", "n02", "n03"], expected_count=6)

    def test_wrong_count_without_classes(self, root):
        with pytest.raises(UserError, match=r"holds 7 images, expected 8"):
            images.folder(root, size=4, expected_count=8)

    def test_named_list(self, root):
        for name in synsets.IMAGENET_10:
            save(root / "train" / name / "a.JPEG", picture(0))
        found = images.folder(root, size=4, classes="imagenet10", labels_from_folders=True)
        assert found.labels.tolist() == list(range(10))

    @pytest.mark.parametrize("name, count", [("imagenet10", 10), ("imagenet_dogs", 15), ("tiny_imagenet", 200)])
    def test_published_lists(self, name, count):
        found = synsets.SYNSETS[name]
        assert len(found) == len(set(found)) == count
        assert all(len(wnid) == 9 and wnid[0] == "n" and wnid[1:].isdigit() for wnid in found)


def one_image(root):
    save(root / "a.png", picture(0))
    return root


BAD_FOLDERS = {
    "missing": (lambda p: p / "nowhere", {}, "nowhere"),
    "no path": (lambda p: "", {}, "give a folder"),
    "empty": (lambda p: p, {}, "no images"),
    "a file": (lambda p: one_image(p) / "a.png", {}, "a.png is not a folder"),
    "size": (one_image, {"size": 0}, "size must be positive"),
    "channels": (one_image, {"channels": 4}, "channels 1 or 3"),
    "policy": (one_image, {"on_error": "ignore"}, "'error' or 'skip'"),
    "class list": (one_image, {"classes": "imagenet_10"}, "did you mean 'imagenet10'"),
    "no class folder": (one_image, {"labels_from_folders": True}, "a.png is in no class folder"),
    "one class": (lambda p: one_image(p / "top").parent, {"labels_from_folders": True}, "'top'"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folder(tmp_path, case):
    make, options, expected = BAD_FOLDERS[case]
    path = make(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(UserError) as error:
        images.folder(path, **{"size": 4, **options})
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_folder_stream_equals_loading(nested, chunk):
    whole = images.folder(nested, size=8)
    parts = list(images.iter_images(nested, (8, 8, 3), chunk))
    assert [i for ids, _ in parts for i in ids] == whole.ids
    assert max(len(rows) for _, rows in parts) <= chunk
    assert (np.concatenate([rows for _, rows in parts]) == whole.features["image"]).all()


ARRAYS = {
    "colour": np.random.default_rng(0).integers(0, 256, (7, 5, 4, 3), np.uint8),
    "grey": np.random.default_rng(1).integers(0, 256, (7, 5, 4), np.uint8),
    "one channel": np.random.default_rng(2).integers(0, 256, (7, 5, 4, 1), np.uint8),
    "float32": np.random.default_rng(3).random((7, 5, 4, 3), np.float32),
    "float64": np.random.default_rng(4).random((7, 5, 4)),
    "big-endian float16": np.random.default_rng(5).random((7, 5, 4)).astype(">f2"),
    "column order": np.asfortranarray(np.random.default_rng(6).integers(0, 256, (7, 5, 4, 3), np.uint8)),
}


def expected_pixels(array):
    pixels = array if array.dtype == np.uint8 else np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    return pixels.reshape(7, 5, 4, -1)


def write(path, array, **others):
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        (np.savez_compressed if "packed" in path.name else np.savez)(path, image=array, **others)
    return path


@pytest.mark.parametrize("file", ["a.npy", "a.npz", "packed.npz"])
@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("chunk", [3, 7])
def test_arrays_and_their_stream(tmp_path, file, kind, chunk, monkeypatch):
    monkeypatch.setattr(arrays, "CHUNK", chunk)
    path = write(tmp_path / file, ARRAYS[kind])
    found, expected = arrays.arrays(path), expected_pixels(ARRAYS[kind])
    assert found.features["image"].dtype == np.uint8
    # Values at x.5 may round either way with the precision of the file.
    assert np.abs(found.features["image"].astype(int) - expected).max() <= (ARRAYS[kind].dtype.itemsize in (2, 4))
    assert (found.features["image"] == expected).mean() > 0.99
    assert found.ids == [str(i) for i in range(7)]
    assert (found.labels, found.name) == (None, file)
    parts = list(arrays.iter_array(path, chunk))
    assert [i for ids, _ in parts for i in ids] == found.ids
    assert [len(rows) for _, rows in parts] == ([3, 3, 1] if chunk == 3 else [7])
    assert (np.concatenate([rows for _, rows in parts]) == found.features["image"]).all()


class TestArrays:
    def test_uint8_npy_is_memory_mapped(self, tmp_path):
        found = arrays.arrays(write(tmp_path / "a.npy", ARRAYS["grey"])).features["image"]
        assert isinstance(found, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 0

    def test_stream_of_a_packed_file_is_lazy(self, tmp_path):
        path = write(tmp_path / "packed.npz", np.zeros((100_000, 16, 16), np.uint8))
        before = next(arrays.iter_array(path, 10))
        assert before[0] == [str(i) for i in range(10)]
        reads = []
        plain = zipfile.ZipExtFile.read

        def counted(self, n=-1):
            reads.append(n)
            return plain(self, n)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(zipfile.ZipExtFile, "read", counted)
            next(arrays.iter_array(path, 10))
        assert 0 < sum(reads) < 100_000
        assert min(reads) >= 0

    @pytest.mark.parametrize(
        "labels, expected",
        [
            (np.arange(7), list(range(7))),
            (np.arange(7)[:, None], list(range(7))),
            (np.array(list("bbacbba")), [1, 1, 0, 2, 1, 1, 0]),
            (np.array([-1, 0, 1, -1, 0, 1, 1]), [-1, 0, 1, -1, 0, 1, 1]),
        ],
        ids=["numbers", "column", "strings", "partly unlabelled"],
    )
    def test_labels_are_read_only_with_a_key(self, tmp_path, labels, expected):
        path = write(tmp_path / "a.npz", ARRAYS["grey"], y=labels)
        assert arrays.arrays(path).labels is None
        assert arrays.arrays(path, label_key="y").labels.tolist() == expected

    def test_all_negative_labels_are_none(self, tmp_path):
        path = write(tmp_path / "a.npz", ARRAYS["grey"], y=np.full(7, -1))
        assert arrays.arrays(path, label_key="y").labels is None

    @pytest.mark.parametrize("key", ["images", "x", "arr_0", "whatever"])
    def test_the_only_key_is_used(self, tmp_path, key):
        np.savez(tmp_path / "a.npz", **{key: ARRAYS["grey"]})
        assert arrays.arrays(tmp_path / "a.npz").num_examples == 7

    def test_the_given_key_is_used(self, tmp_path):
        np.savez(tmp_path / "a.npz", image=ARRAYS["grey"], other=ARRAYS["colour"])
        assert arrays.arrays(tmp_path / "a.npz", image_key="other").features["image"].shape[3] == 3

    def test_slight_overshoot_is_accepted(self, tmp_path):
        path = write(tmp_path / "a.npy", np.array([[[-9e-4, 1 + 9e-4]]]))
        assert arrays.arrays(path).features["image"].ravel().tolist() == [0, 255]

    @pytest.mark.parametrize("source", ["colour", "grey"])
    @pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 1), (10, 8, 3)])
    def test_images_are_converted_to_the_requested_shape(self, tmp_path, source, shape):
        path = write(tmp_path / "a.npy", ARRAYS[source])
        (ids, rows), *rest = images.iter_images(path, shape, 7)
        assert (len(ids), rows.shape, rest) == (7, (7, *shape), [])
        picture = Image.fromarray(ARRAYS[source][2]).convert("RGB" if shape[2] == 3 else "L")
        expected = np.asarray(picture.resize(shape[1::-1], Image.Resampling.BILINEAR)).reshape(shape)
        assert (rows[2] == expected).all()


def with_nan():
    array = np.zeros((7, 2, 2), np.float32)
    array[4, 1, 1] = np.nan
    return array


def text_file(path):
    path.write_text("no array")
    return path


def cut(path, array):
    write(path, array)
    path.write_bytes(path.read_bytes()[:-40])
    return path


BAD_ARRAYS = {
    "missing": (lambda p: p / "no.npy", {}, "no.npy"),
    "no path": (lambda p: "", {}, "give a .npy"),
    "extension": (lambda p: text_file(p / "a.csv"), {}, "a.csv is not a .npy"),
    "a folder": (lambda p: p, {}, "give a folder"),
    "text npy": (lambda p: text_file(p / "a.npy"), {}, "a.npy can't be read"),
    "text npz": (lambda p: text_file(p / "a.npz"), {}, "a.npz can't be read"),
    "cut npy": (lambda p: cut(p / "a.npy", np.zeros((9, 4, 4))), {}, "a.npy can't be read"),
    "cut uint8 npy": (lambda p: cut(p / "a.npy", np.zeros((9, 4, 4), np.uint8)), {}, "a.npy can't be read"),
    "cut npz": (lambda p: cut(p / "a.npz", np.zeros((9, 4, 4))), {}, "a.npz can't be read"),
    "objects": (lambda p: write(p / "a.npy", np.array([[[None]]])), {}, "Python objects"),
    "objects npz": (lambda p: write(p / "a.npz", np.array([[[None]]])), {}, "Python objects"),
    "int64": (lambda p: write(p / "a.npy", np.zeros((2, 3, 3), int)), {}, "int64"),
    "bool": (lambda p: write(p / "a.npz", np.zeros((2, 3, 3), bool)), {}, "bool"),
    "structured": (lambda p: write(p / "a.npy", np.zeros((2, 3, 3), [("r", "u1")])), {}, "uint8, or float"),
    "NaN": (lambda p: write(p / "a.npy", with_nan()), {}, "row 4"),
    "NaN npz": (lambda p: write(p / "a.npz", with_nan()), {}, "['image'] row 4"),
    "0 to 255": (lambda p: write(p / "a.npy", np.full((2, 3, 5), 255.0)), {}, "scale floats"),
    "negative": (lambda p: write(p / "a.npy", np.full((2, 3, 5), -0.5)), {}, "from -0.5 to -0.5"),
    "rank 2": (lambda p: write(p / "a.npy", np.zeros((2, 9), np.uint8)), {}, "(2, 9)"),
    "rank 0": (lambda p: write(p / "a.npy", np.uint8(3)), {}, "shape ()"),
    "empty": (lambda p: write(p / "a.npy", np.zeros((0, 3, 3), np.uint8)), {}, "no images"),
    "RGBA": (lambda p: write(p / "a.npy", np.zeros((2, 8, 8, 4), np.uint8)), {}, "4 channels"),
    "channels first": (
        lambda p: write(p / "a.npy", np.zeros((2, 3, 8, 8), np.uint8)),
        {},
        "channels come last",
    ),
    "wrong key": (
        lambda p: write(p / "a.npz", ARRAYS["grey"]),
        {"image_key": "imag"},
        "did you mean 'image'",
    ),
    "no key": (lambda p: (np.savez(p / "a.npz", a=1, b=2), p / "a.npz")[1], {}, "a, b"),
    "label key": (lambda p: write(p / "a.npz", ARRAYS["grey"]), {"label_key": "y"}, "no array 'y'"),
    "labels of npy": (lambda p: write(p / "a.npy", ARRAYS["grey"]), {"label_key": "y"}, "need a .npz"),
    "label count": (lambda p: write(p / "a.npz", ARRAYS["grey"], y=np.arange(6)), {"label_key": "y"}, "(6,)"),
    "float labels": (
        lambda p: write(p / "a.npz", ARRAYS["grey"], y=np.full(7, 0.5)),
        {"label_key": "y"},
        "whole numbers",
    ),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_array(tmp_path, case):
    make, options, expected = BAD_ARRAYS[case]
    path = make(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(UserError) as error:
        arrays.arrays(path, **options)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert snapshot(tmp_path) == before
    if "label_key" not in options:
        with pytest.raises(UserError):
            list(arrays.iter_array(path, 2, **options))


@pytest.mark.parametrize("file", ["a.npy", "a.npz"])
def test_a_bad_row_is_counted_over_all_chunks(tmp_path, file):
    path = write(tmp_path / file, with_nan())
    stream = arrays.iter_array(path, 3)
    assert next(stream)[0] == ["0", "1", "2"]
    with pytest.raises(UserError, match="row 4 has pixels that are NaN"):
        next(stream)


def test_npz_member_with_fewer_rows_than_its_header(tmp_path):
    np.save(tmp_path / "whole.npy", ARRAYS["grey"])
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("image.npy", (tmp_path / "whole.npy").read_bytes()[: -2 * ARRAYS["grey"][0].size])
    with pytest.raises(UserError, match=r"a\.npz can't be read.*ends early"):
        arrays.arrays(tmp_path / "a.npz")


class TestGenerated:
    def test_digits(self):
        found = data.load("digits")
        pixels = found.features["image"]
        assert (pixels.shape, pixels.dtype, pixels.min(), pixels.max()) == ((1797, 8, 8, 1), np.uint8, 0, 255)
        assert np.bincount(found.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
        assert (found.ids[0], found.ids[-1]) == ("0", "1796")

    @pytest.mark.parametrize("channels", [1, 3])
    def test_synthetic_shape_and_balance(self, channels):
        found = data.load("synthetic", n=20, size=9, channels=channels, num_clusters=3, seed=4)
        assert found.features["image"].shape == (20, 9, 9, channels)
        assert sorted(np.bincount(found.labels)) == [6, 7, 7]

    def test_synthetic_images_depend_on_the_seed(self):
        first, again, other = (data.load("synthetic", n=8, seed=s).features["image"] for s in (0, 0, 1))
        assert (first == again).all()
        assert (first != other).any()

    def test_synthetic_classes_are_visible(self):
        found = data.load("synthetic", n=300, size=16, num_clusters=10)
        colours = found.features["image"].mean((1, 2))
        assert metrics.accuracy(found.labels, KMeans(10, n_init=5, random_state=0).fit_predict(colours)) > 0.9

    @pytest.mark.parametrize("options", [{"n": 0}, {"size": 0}, {"channels": 2}, {"num_clusters": 0}])
    def test_bad_synthetic(self, options):
        with pytest.raises(UserError, match="positive"):
            data.load("synthetic", **options)


@pytest.mark.parametrize(
    "source, options, expected",
    [
        ("digit", {}, "did you mean 'digits'"),
        ("", {}, "unknown data source ''"),
        ("synthetic", {"sise": 3}, "no setting 'sise' (did you mean 'size'?)"),
        ("digits", {"path": "x"}, "no setting 'path'"),
        ("folder", {"path": "x"}, "needs the setting 'size'"),
        ("tfds", {}, "needs the setting 'name'"),
    ],
)
def test_load_refuses(source, options, expected):
    with pytest.raises(UserError) as error:
        data.load(source, **options)
    assert expected in str(error.value)


class TestBatchIndices:
    @pytest.mark.parametrize("n, batch_size", [(10, 3), (12, 4), (5, 5), (7, 1)])
    def test_epochs_are_permutations_without_the_last_partial_batch(self, n, batch_size):
        steps = n // batch_size
        orders = []
        for epoch in range(3):
            batches = [batch_indices(1, epoch * steps + s, n, batch_size) for s in range(steps)]
            assert {(b.shape, b.dtype) for b in batches} == {((batch_size,), np.dtype(np.int32))}
            orders.append(np.concatenate(batches))
            assert len(set(orders[-1])) == steps * batch_size
            assert set(orders[-1]) <= set(range(n))
        assert n < 7 or not (orders[0] == orders[1]).all()

    def test_batch_indices_are_a_pure_function(self):
        forward = [batch_indices(3, s, 50, 8) for s in range(20)]
        epoch_permutation.cache_clear()
        backward = [batch_indices(3, s, 50, 8) for s in reversed(range(20))][::-1]
        assert (np.array(forward) == np.array(backward)).all()

    def test_seeds_and_sizes_differ(self):
        first = batch_indices(0, 0, 1000, 100)
        assert (first != batch_indices(1, 0, 1000, 100)).any()
        assert (epoch_permutation(0, 1, 1000) != epoch_permutation(1, 0, 1000)).any()

    def test_known_values(self):
        """A resumed run continues in this order, so the order must not change between releases."""
        assert batch_indices(3, 1, 10, 10).tolist() == KNOWN
        assert batch_indices(3, 3, 10, 3).tolist() == KNOWN[:3]

    def test_every_row_is_first_equally_often(self):
        counts = np.bincount([epoch_permutation(0, e, 8)[0] for e in range(4000)], minlength=8)
        assert abs(counts - 500).max() < 100

    def test_the_cached_indices_are_read_only(self):
        with pytest.raises(ValueError, match="read-only"):
            batch_indices(0, 0, 10, 5)[0] = 1

    @pytest.mark.parametrize("batch_size", [0, 6])
    def test_batch_size_out_of_range(self, batch_size):
        with pytest.raises(ValueError, match=f"{batch_size}.*5"):
            batch_indices(0, 0, 5, batch_size)
