"""Messages say what to do: the file, the line, the setting or the package."""

import csv
import io
import struct

import numpy as np
import pytest
import scipy.io
from PIL import Image

from clustering_jax import cli, data
from clustering_jax.data.images.folder import folder
from clustering_jax.errors import LONGEST, UserError
from clustering_jax.inference.results import assignment_lines
from tests.data.views.view_files import A, B, Y, cells

# A config, and what the one line says.
CONFIGS = {
    "import nothing_like_it\n": r"mine\.py, line 1: ModuleNotFoundError: No module named 'nothing_like_it'",
    "def get_config(variant=''):\n    return 1 / 0\n": r"mine\.py, line 2: ZeroDivisionError",
    "def get_config(:\n": r"mine\.py, line 1: SyntaxError",
    "def get_config(variant=''):\n    raise KeyError('a')\n": r"mine\.py, line 2: KeyError: 'a'",
}


@pytest.mark.parametrize("text", CONFIGS)
def test_a_config_that_fails_names_its_line(tmp_path, text):
    (tmp_path / "mine.py").write_text(text)
    for flag in (["--config", str(tmp_path / "mine.py")], [f"--config={tmp_path / 'mine.py'}:smoke"]):
        with pytest.raises(UserError, match=CONFIGS[text]) as error:
            cli.read_flags(["train", *flag, "--workdir=run"], "workdir", "")
        assert "Traceback" not in str(error.value)


def test_a_config_that_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*none\.py"):
        cli.read_flags(["train", f"--config={tmp_path / 'none.py'}", "--workdir=run"], "workdir", "")


def test_objects_in_columns_with_labels(tmp_path):
    np.savez(tmp_path / "a.npz", view0=A.T, view1=A.T + 1, y=Y)
    with pytest.raises(UserError, match=r"3 rows and 6 labels: if objects are columns, set transpose"):
        data.load("multiview", path=str(tmp_path / "a.npz"), label_key="y")
    found = data.load("multiview", path=str(tmp_path / "a.npz"), label_key="y", transpose=True)
    assert found.labels.tolist() == Y.tolist()


def test_labels_in_a_cell(tmp_path):
    one = {"X1": A, "X2": B, "truelabel": cells(Y)}
    scipy.io.savemat(tmp_path / "one.mat", one)
    assert data.load("multiview", path=str(tmp_path / "one.mat"), label_key="truelabel").labels.tolist() == Y.tolist()
    scipy.io.savemat(tmp_path / "two.mat", {**one, "truelabel": cells(Y, Y)})
    with pytest.raises(UserError, match=r"it holds truelabel\{1\}, truelabel\{2\}, name one of them"):
        data.load("multiview", path=str(tmp_path / "two.mat"), label_key="truelabel")


def test_a_mat_file_of_another_program(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["X1"] = A
    with pytest.raises(UserError, match=r"written by h5py, not by MATLAB.*save a \.npz"):
        data.load("multiview", path=str(tmp_path / "a.mat"))


def test_labels_that_look_like_a_view(tmp_path):
    for name, array in {"a.npy": A, "b.npy": B, "kinds.npy": Y}.items():
        np.save(tmp_path / name, array)
    with pytest.raises(UserError, match=r"kinds\.npy has shape \(6,\).*if these are labels, name them by label_key"):
        data.load("multiview", path=str(tmp_path))


@pytest.mark.parametrize("source", ["multiview", "multiview_pca", "arrays", "embeddings"])
def test_no_path(source):
    with pytest.raises(UserError, match=r"has no path: give --config\.data\.path=PATH"):
        data.load(source, path="")


def test_images_of_other_kinds_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("clustering_jax.data.images.listing.EXTENSIONS", frozenset({".png", ".jfif"}))
    (tmp_path / "a.heic").write_bytes(b"")
    with pytest.raises(
        UserError, match=r'holds no images .*it holds a\.heic; to read HEIC: pip install "clustering_jax'
    ):
        folder(tmp_path, size=4)
    Image.fromarray(np.arange(75, dtype=np.uint8).reshape(5, 5, 3)).save(tmp_path / "b.jfif", "JPEG")
    found = folder(tmp_path, size=4)
    assert found.ids == ["b.jfif"] and any("first a.heic; to read HEIC" in note for note in found.notes)


def tiff_of_12_bits(pixels):
    """A grey TIFF whose pixels have 12 bits, two in three bytes."""
    pairs = pixels.reshape(-1, 2).astype(np.uint32)
    packed = (pairs[:, 0] << 12 | pairs[:, 1]).astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    height, width = pixels.shape
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHI", b"II", 42, 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_a_tiff_of_12_bits_keeps_its_grey_levels(tmp_path):
    pixels = np.linspace(0, 4095, 400).astype(np.uint16).reshape(20, 20)
    (tmp_path / "a.tiff").write_bytes(tiff_of_12_bits(pixels))
    found = folder(tmp_path, size=20, channels=1).features["image"]
    np.testing.assert_array_equal(found[0, ..., 0], pixels >> 4)


def test_images_that_were_scaled_twice(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 6)) / 255.0
    np.save(tmp_path / "a.npy", pixels / 255)
    np.save(tmp_path / "b.npy", pixels)
    assert "divided by 255 twice" in data.load("arrays", path=str(tmp_path / "a.npy")).notes[0]
    assert data.load("arrays", path=str(tmp_path / "b.npy")).notes == ()


@pytest.mark.parametrize("name", ["a\rb.png", "a\nb.png", "a\r\nb", 'a"b', "a,b", "=1+1", "\r"])
def test_a_file_name_does_not_break_the_lines_of_a_csv(name):
    text = "".join(assignment_lines([name, "c"], np.eye(2), header=True))
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["id"] for row in rows] == [name, "c"] and [row["cluster"] for row in rows] == ["0", "1"]


def test_messages_are_one_line_of_a_length_that_can_be_read():
    error = UserError("a\nb\r\n" + "x" * 5000)
    assert str(error).startswith("a b xx") and len(str(error)) <= LONGEST + 4
