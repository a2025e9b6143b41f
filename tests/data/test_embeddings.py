"""Tests reading of embeddings and nouns from files of the user and of the embedding command, and one-line errors."""

import hashlib
import json

import numpy as np
import pytest
import scipy.sparse

from clustering_jax import data
from clustering_jax.data.embeddings import embeddings, unit_rows
from clustering_jax.errors import UserError

RNG = np.random.default_rng(0)
N, M, D = 6, 4, 3
IMAGE, NOUNS = 5 * RNG.normal(size=(N, D)), RNG.normal(size=(M, D))
WORDS = ["cat", "guinea pig", "naïve", "dog"]
LABELS, TRAIN = np.array([2, 0, 1, -1, 0, 2]), np.array([1, 1, 0, 1, 0, 0])
ARRAYS = {"image": IMAGE, "nouns": NOUNS, "noun_words": np.array(WORDS), "y": LABELS, "train": TRAIN}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write(path, **changes):
    """Writes `ARRAYS` with changes as a `.npz` file or a folder of `.npy` files. None omits an array."""
    arrays = {key: array for key, array in {**ARRAYS, **changes}.items() if array is not None}
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        path.mkdir()
        for key, array in arrays.items():
            np.save(path / f"{key}.npy", array)
    return path


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_directory(path, labels=LABELS, nouns=True):
    """Writes a directory like the embedding command."""
    path.mkdir()
    np.save(path / "train.npy", IMAGE.astype(np.float32))
    np.save(path / "test.npy", IMAGE[:2].astype(np.float32))
    splits = {
        "train": {
            "mark": "a",
            "rows": N,
            "labels": labels is not None,
            "sha256": _sha256(path / "train.npy"),
            "source": "photos, all",
        }
    }
    if labels is not None:
        np.save(path / "train.labels.npy", labels)
    splits["test"] = {**splits["train"], "rows": 2, "labels": False, "sha256": _sha256(path / "test.npy")}
    for name, ids in {"train": [f"photos/{i}.png" for i in range(N)], "test": ["x.png", "y.png"]}.items():
        (path / f"{name}.ids.json").write_text(json.dumps(ids))
    manifest = {"model": "m", "checksum": "c", "resize": 224, "size": 224, "splits": splits, "nouns": {}}
    if nouns:
        np.save(path / "nouns.npy", NOUNS.astype(np.float32))
        (path / "nouns.txt").write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")
        manifest["nouns"] = {"mark": "d", "rows": M, "prompts": ["a {}."], "sha256": _sha256(path / "nouns.npy")}
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def assert_nouns(found):
    assert found.vocabulary.words == WORDS
    np.testing.assert_allclose(found.vocabulary.embeddings, unit(NOUNS), rtol=1e-6)


# --- Reading


@pytest.mark.parametrize("name", ["emb.npz", "folder"])
def test_rows_have_norm_1_and_words_ids_and_labels_are_read(tmp_path, name):
    found = data.load("embeddings", path=str(write(tmp_path / name)), label_key="y")
    assert list(found.features) == ["image"] and found.features["image"].dtype == np.float32
    np.testing.assert_allclose(found.features["image"], unit(IMAGE), rtol=1e-6)
    assert_nouns(found)
    assert found.vocabulary.embeddings.dtype == np.float32
    assert found.labels.dtype == np.int64 and found.labels.tolist() == LABELS.tolist()
    assert found.ids == ["0", "1", "2", "3", "4", "5"] and (found.name, found.split) == (name, "all")


@pytest.mark.parametrize("dtype, tolerance", [(np.float16, 1e-3), (np.float64, 1e-6), (np.float32, 1e-6)])
def test_dtype_and_scale_of_the_rows_do_not_matter(tmp_path, dtype, tolerance):
    scales = np.array([[1e-3], [1], [7], [100], [1e-2], [3]])
    path = write(tmp_path / "e.npz", image=(scales * IMAGE).astype(dtype), nouns=NOUNS.astype(dtype))
    found = embeddings(path)
    assert found.features["image"].dtype == np.float32
    np.testing.assert_allclose(found.features["image"], unit(IMAGE), atol=tolerance)
    np.testing.assert_allclose(np.linalg.norm(found.features["image"], axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("mask", [TRAIN, TRAIN.astype(bool), TRAIN.astype(float), TRAIN[:, None]], ids=str)
@pytest.mark.parametrize("split, rows", [("train", [0, 1, 3]), ("test", [2, 4, 5]), ("all", range(6))])
def test_splits_by_a_mask(tmp_path, mask, split, rows):
    path = write(tmp_path / "e.npz", train=mask)
    found = embeddings(path, split=split, train_key="train", label_key="y")
    np.testing.assert_allclose(found.features["image"], unit(IMAGE)[list(rows)], rtol=1e-6)
    assert found.ids == [str(i) for i in rows] and found.split == split
    assert found.labels.tolist() == LABELS[list(rows)].tolist()
    assert_nouns(found)


@pytest.mark.parametrize("suffix", [".npz", ""])
def test_nouns_from_another_file(tmp_path, suffix):
    image = tmp_path / "image.npy"
    np.save(image, IMAGE)
    nouns = write(tmp_path / f"words{suffix}", image=None, y=None, train=None)
    found = embeddings(image, nouns=nouns)
    assert_nouns(found)
    np.testing.assert_allclose(found.features["image"], unit(IMAGE), rtol=1e-6)


def test_other_keys_and_words_as_bytes(tmp_path):
    np.savez(tmp_path / "e.npz", x=IMAGE, t=NOUNS, w=np.array([w.encode() for w in WORDS]))
    assert_nouns(embeddings(tmp_path / "e.npz", image_key="x", noun_key="t", word_key="w"))


def test_a_split_without_nouns_or_known_labels(tmp_path):
    found = embeddings(write(tmp_path / "e.npz", nouns=None, y=np.full(N, -1)), label_key="y")
    assert found.vocabulary is None and found.labels is None


@pytest.mark.parametrize("labels", [LABELS, None], ids=["labels", "none"])
def test_a_directory_of_the_embedding_command(tmp_path, labels):
    path = write_directory(tmp_path / "made", labels)
    found = embeddings(path, split="train")
    np.testing.assert_allclose(found.features["image"], unit(IMAGE), rtol=1e-5)
    assert found.ids == [f"photos/{i}.png" for i in range(N)] and (found.name, found.split) == ("made", "train")
    assert found.labels is None if labels is None else found.labels.tolist() == LABELS.tolist()
    assert_nouns(found)
    other = embeddings(path, split="test")
    assert other.ids == ["x.png", "y.png"] and other.labels is None
    np.testing.assert_allclose(other.features["image"], unit(IMAGE[:2]), rtol=1e-5)


def test_a_directory_without_nouns(tmp_path):
    assert embeddings(write_directory(tmp_path / "made", nouns=False), split="train").vocabulary is None


def test_blocks_of_rows_change_nothing(monkeypatch):
    whole = unit_rows(IMAGE, "x")
    monkeypatch.setattr("clustering_jax.data.embeddings.CHUNK", 4)
    np.testing.assert_array_equal(unit_rows(IMAGE, "x"), whole)
    with pytest.raises(UserError, match="x row 5 is all zeros"):
        unit_rows(np.where(np.arange(N)[:, None] == 5, 0, IMAGE), "x")


# --- Errors


def refuses(expected, *args, **options):
    with pytest.raises(UserError, match=expected) as error:
        embeddings(*args, **options)
    assert "\n" not in str(error.value)


def with_row(row, value):
    rows = IMAGE.copy()
    rows[row, 1] = value
    return rows if value else np.where(np.arange(N)[:, None] == row, 0, IMAGE)


SPLIT = {"split": "test", "train_key": "train"}
WRONG = {
    "image key": ({}, {"image_key": "imag"}, "no array 'imag' .*did you mean 'image'"),
    "label key": ({}, {"label_key": "yy"}, r"no array 'yy' .*did you mean 'y'"),
    "train key": ({}, {"train_key": "trian", "split": "train"}, "no array 'trian' .*did you mean 'train'"),
    "noun key": ({}, {"nouns": "e.npz", "noun_key": "noun"}, "no array 'noun' .*did you mean 'nouns'"),
    "word key": ({}, {"word_key": "noun_word"}, "no array 'noun_word' .*did you mean 'noun_words'"),
    "NaN": ({"image": with_row(3, np.nan)}, {}, r"\['image'\] row 3 has NaN or infinite"),
    "infinite": ({"image": with_row(0, -np.inf)}, {}, r"\['image'\] row 0 has NaN or infinite"),
    "zeros": ({"image": with_row(4, 0)}, {}, r"\['image'\] row 4 is all zeros"),
    "zeros of a split": ({"image": with_row(4, 0)}, SPLIT, r"\['image'\] row 4 is all zeros"),
    "noun of zeros": ({"nouns": np.zeros((M, D))}, {}, r"\['nouns'\] row 0 is all zeros"),
    "width": ({"nouns": NOUNS[:, :2]}, {}, "image embeddings have 3 columns, the nouns 2: .*one model"),
    "too few words": ({"noun_words": np.array(WORDS[:3])}, {}, "3 words for 4 embeddings of nouns"),
    "numbers as words": ({"noun_words": np.arange(M)}, {}, r"\['noun_words'\] is int64 \(4,\): needs text"),
    "object images": ({"image": IMAGE.astype(object)}, {}, "holds Python objects"),
    "object words": ({"noun_words": np.array(WORDS, object)}, {}, "holds Python objects"),
    "integers": ({"image": IMAGE.astype(int)}, {}, r"\['image'\] is int64 \(6, 3\): .*floating point \[n, d\]"),
    "integer nouns": ({"nouns": NOUNS.astype(int)}, {}, r"\['nouns'\] is int64 \(4, 3\)"),
    "rank 1": ({"image": IMAGE[0]}, {}, r"\['image'\] is float64 \(3,\)"),
    "rank 3": ({"image": IMAGE[None]}, {}, r"\['image'\] is float64 \(1, 6, 3\)"),
    "a number": ({"image": np.array(1.0)}, {}, r"\['image'\] is float64 \(\)"),
    "no rows": ({"image": IMAGE[:0]}, {}, r"\['image'\] is float64 \(0, 3\)"),
    "no nouns": ({"nouns": NOUNS[:0], "noun_words": np.array([], "U1")}, {}, r"\['nouns'\] is float64 \(0, 3\)"),
    "float labels": (
        {"y": LABELS / 2},
        {"label_key": "y"},
        r"\['y'\] row . is .*: labels must be whole numbers or text",
    ),
    "too few labels": (
        {"y": LABELS[:5]},
        {"label_key": "y"},
        r"\['y'\] has shape \(5,\): give one label for each of the 6 rows",
    ),
    "no mask": ({"train": LABELS}, SPLIT, r"\['train'\] is int64 \(6,\): needs a mask of 0 and 1 \[6\]"),
    "short mask": ({"train": TRAIN[:4]}, SPLIT, r"\['train'\] is int64 \(4,\): needs a mask"),
    "empty split": ({"train": np.ones(N, int)}, SPLIT, r"\['train'\] marks no row as 'test'"),
    "unknown split": ({}, {"split": "tset", "train_key": "train"}, "split 'tset' is unknown: choose all, or train or"),
    "split without a mask": ({}, {"split": "train"}, "split 'train' is unknown: .* with a train_key"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_errors(tmp_path, monkeypatch, wrong):
    changes, options, message = WRONG[wrong]
    monkeypatch.chdir(tmp_path)
    refuses(message, write(tmp_path / "e.npz", **changes), **options)


def test_a_sparse_matrix_is_refused(tmp_path):
    scipy.sparse.save_npz(tmp_path / "e.npz", scipy.sparse.csr_matrix(IMAGE))
    refuses(r"e.npz is .*floating point \[n, d\]", tmp_path / "e.npz")


def test_damaged_and_missing_files(tmp_path):
    refuses("absent.npz' does not exist", tmp_path / "absent.npz")
    refuses("path is empty", "")
    (tmp_path / "e.txt").write_text("1")
    refuses("e.txt is of an unknown type", tmp_path / "e.txt")
    whole = write(tmp_path / "e.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    refuses("cut.npz can't be read, it is damaged", tmp_path / "cut.npz")
    at = whole.index(np.float64(IMAGE[2, 1]).tobytes())
    (tmp_path / "bit.npz").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    refuses("bit.npz can't be read, it is damaged", tmp_path / "bit.npz")


def rewritten(**changes):
    def change(path):
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**manifest, **changes}))

    return change


def cut(name):
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[:-1])


DAMAGE = {
    "split": (lambda path: None, "no split 'tran' .*did you mean 'train'", "tran"),
    "all is no split": (lambda path: None, r"no split 'all' \(known: test, train\)", "all"),
    "no manifest": (cut("manifest.json"), "manifest.json can't be read, it is damaged", "train"),
    "no splits": (lambda path: (path / "manifest.json").write_text("{}"), "manifest.json can't be read", "train"),
    "no list": (lambda path: (path / "manifest.json").write_text("[]"), "manifest.json can't be read", "train"),
    "bare splits": (rewritten(splits={"train": {}}), "manifest.json can't be read", "train"),
    "short rows": (cut("train.npy"), "train.npy can't be read, it is damaged", "train"),
    "short nouns": (cut("nouns.npy"), "nouns.npy can't be read, it is damaged", "train"),
    "no rows": (lambda path: (path / "train.npy").unlink(), "train.npy can't be read", "train"),
    "no labels": (lambda path: (path / "train.labels.npy").unlink(), "train.labels.npy can't be read", "train"),
    "other labels": (lambda path: np.save(path / "train.labels.npy", LABELS[1:]), "6 embeddings but 5 labels", "train"),
    "other ids": (lambda path: (path / "train.ids.json").write_text('["a"]'), "6 embeddings but 1 ids", "train"),
    "no ids": (cut("train.ids.json"), "train.ids.json can't be read", "train"),
    "other words": (lambda path: (path / "nouns.txt").write_text("cat\n"), "1 words for 4 embeddings", "train"),
    "no words": (lambda path: (path / "nouns.txt").unlink(), "nouns.txt can't be read", "train"),
    "NaN": (lambda path: np.save(path / "train.npy", with_row(1, np.nan)), "train.npy is not what manifest", "train"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_directory(tmp_path, damage):
    change, message, split = DAMAGE[damage]
    change(path := write_directory(tmp_path / "made"))
    refuses(message, path, split=split)
