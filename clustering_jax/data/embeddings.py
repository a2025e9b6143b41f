"""Reads embeddings of images, and of words in the same space: files of the user, or of `clustering_jax.embed`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from clustering_jax.data.base import Dataset, Vocabulary, known_labels
from clustering_jax.data.claims import check_npy
from clustering_jax.data.labels import read_labels
from clustering_jax.data.views.files import Source, open_source
from clustering_jax.errors import UserError, nearest, reading
from clustering_jax.seal import unsealed

MANIFEST = "manifest.json"
CHUNK = 65536


def embeddings(
    path: str | Path,
    *,
    split: str = "all",
    image_key: str = "image",
    label_key: str = "",
    train_key: str = "",
    nouns: str | Path = "",
    noun_key: str = "nouns",
    word_key: str = "noun_words",
) -> Dataset:
    """Reads embeddings of images and, if there is one, the vocabulary.

    Args:
      path: a directory that `clustering_jax.embed` wrote, which needs no keys; or a file that `open_source` reads, or a
        folder of `.npy` files, with the keys below.
      split: "all"; or a split of the directory; or "train" for the rows that the mask `train_key` marks, and "test" for
        the others.
      image_key: key of the embeddings, floating point [n, d].
      label_key: key of the labels [n], see `read_labels`. They are for scoring only. "" reads no labels.
      train_key: key of the mask of the training rows, [n] of 0 and 1.
      nouns: another such file, which holds the nouns; "" is `path`.
      noun_key: key of the embeddings of nouns, floating point [m, d].
      word_key: key of the words of the nouns, text [m]. The nouns and their words may both be missing, because a split
        that is only scored needs none.

    Returns:
      Features ``{"image": float32 [n, d]}`` whose rows have norm 1.

    Raises:
      UserError: something is missing, damaged, not finite, or of a wrong shape or width; or a row is all zeros.
    """
    root = Path(path).expanduser()
    if (root / MANIFEST).is_file():
        image, labels, ids, vocabulary = _read_directory(root, split)
    else:
        source = open_source(path)
        image, labels, ids = _read_source(source, split, image_key, label_key, train_key)
        vocabulary = _vocabulary(open_source(nouns) if nouns else source, noun_key, word_key, required=bool(nouns))
    if vocabulary and vocabulary.embeddings.shape[1] != image.shape[1]:
        widths = f"{image.shape[1]} columns, the nouns {vocabulary.embeddings.shape[1]}"
        raise UserError(f"{path}: the image embeddings have {widths}: both must come from one model")
    return Dataset({"image": image}, ids, labels, root.name, split, vocabulary=vocabulary)


def unit_rows(rows: Any, origin: str, numbers: np.ndarray | None = None) -> np.ndarray:
    """Scales rows to norm 1.

    Args:
      rows: floating point [n, d].
      origin: name of the array in messages.
      numbers: int [n], the numbers of the rows in messages; None is 0, 1, ...

    Returns:
      float32 [n, d].

    Raises:
      UserError: `rows` is not a floating point array [n, d], or a row is not finite or all zeros.
    """
    rows = _floating(rows, origin)
    unit = np.empty(rows.shape, np.float32)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK].astype(np.float64)
        norms = np.sqrt((part**2).sum(1, keepdims=True))
        good = np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)
        if not good.all():
            row = int(good.argmin())
            what = "is all zeros" if norms[row] == 0 else "has NaN or infinite numbers"
            number = start + row if numbers is None else numbers[start + row]
            raise UserError(f"{origin} row {number} {what}: remove it, or embed it again")
        unit[start : start + CHUNK] = part / norms
    return unit


def _floating(rows: Any, origin: str) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.ndim != 2 or 0 in rows.shape or rows.dtype.kind != "f":
        raise UserError(f"{origin} is {rows.dtype} {rows.shape}: embeddings must be floating point [n, d]")
    return rows


def _read_source(source: Source, split: str, image_key: str, label_key: str, train_key: str) -> tuple:
    """Returns embeddings, labels and ids of the split."""
    keys = _existing(source, [image_key, *filter(None, (label_key, train_key))])
    origin = source.origin(keys[0])
    image = _floating(source.read(keys[0]), origin)
    rows = _split_rows(source, split, keys[-1] if train_key else "", len(image))
    labels = None
    if label_key:
        every = read_labels(source.read_labels(keys[1], len(image)), len(image), source.origin(keys[1]))
        labels = None if every is None else known_labels(every[rows])
    ids = [str(i) for i in rows]
    return unit_rows(image[rows], origin, rows), labels, ids


def _existing(source: Source, requested: list[str]) -> list[str]:
    """Returns the keys as the source has them.

    The name of a `.npy` file may come without its extension. A source with a single array needs no name for the first.
    """
    only = list(source.readers) if len(source.readers) == 1 else []
    keys = [next((k for k in (key, f"{key}.npy") if k in source.readers), "") for key in requested]
    keys[0] = keys[0] or (only[0] if only else "")
    if "" in keys:
        missing = requested[keys.index("")]
        raise UserError(f"{source.name} has no array '{missing}'{nearest(missing, source.readers)}")
    return keys


def _split_rows(source: Source, split: str, train_key: str, n: int) -> np.ndarray:
    """Returns the row numbers of the split, int [rows]."""
    if split == "all":
        return np.arange(n)
    if split not in ("train", "test") or not train_key:
        raise UserError(f"{source.name}: split '{split}' is unknown: choose all, or train or test with a train_key")
    mask = np.asarray(source.read(train_key)).reshape(-1)
    if len(mask) != n or not np.isin(mask, (0, 1)).all():
        raise UserError(f"{source.origin(train_key)} is {mask.dtype} {mask.shape}: needs a mask of 0 and 1 [{n}]")
    rows = np.flatnonzero(mask.astype(bool) == (split == "train"))
    if not len(rows):
        raise UserError(f"{source.origin(train_key)} marks no row as '{split}'")
    return rows


def _vocabulary(source: Source, noun_key: str, word_key: str, required: bool) -> Vocabulary | None:
    """Returns the vocabulary of a source, or None if it has no nouns and none are required."""
    keys = {name.removesuffix(".npy") for name in source.readers}
    if not required and noun_key not in keys:
        return None
    nouns, words_key = _existing(source, [noun_key, word_key])
    words = np.asarray(source.read(words_key)).reshape(-1)
    if words.dtype.kind not in "SU":
        origin = source.origin(words_key)
        raise UserError(f"{origin} is {words.dtype} {words.shape}: needs text, the words of the nouns")
    decoded = np.char.decode(words, "utf-8", "replace") if words.dtype.kind == "S" else words
    embeddings = unit_rows(source.read(nouns), source.origin(nouns))
    return _checked(Vocabulary(decoded.tolist(), embeddings), source.name)


def _checked(vocabulary: Vocabulary, name: str) -> Vocabulary:
    if len(vocabulary.words) != len(vocabulary.embeddings):
        counts = f"{len(vocabulary.words)} words for {len(vocabulary.embeddings)} embeddings of nouns"
        raise UserError(f"{name} holds {counts}: their numbers must be equal")
    return vocabulary


def _read_directory(root: Path, split: str) -> tuple:
    """Returns embeddings, labels, ids and vocabulary of a directory that `clustering_jax.embed` wrote."""
    with reading(root / MANIFEST):
        manifest = unsealed(json.loads((root / MANIFEST).read_text(encoding="utf-8")))
        labelled = {name: entry["labels"] for name, entry in manifest["splits"].items()}
        _check_files(root, manifest["splits"].get(split) or {})
        _check_files(root, manifest.get("nouns") or {})
    if split not in labelled or Path(split).name != split:
        raise UserError(f"{root} has no split '{split}'{nearest(split, labelled)}")
    image = _verified_rows(root, f"{split}.npy", manifest["splits"][split])
    labels = _array(root, f"{split}.labels.npy") if labelled[split] else None
    with reading(root / f"{split}.ids.json"):
        ids = [str(name) for name in json.loads((root / f"{split}.ids.json").read_text(encoding="utf-8"))]
    for name, column in {"ids": ids, "labels": labels}.items():
        if column is not None and len(column) != len(image):
            raise UserError(f"{root}: {len(image)} embeddings but {len(column)} {name} of '{split}': embed it again")
    vocabulary = None
    if manifest.get("nouns"):
        nouns = _verified_rows(root, "nouns.npy", manifest["nouns"])
        vocabulary = _checked(Vocabulary(_lines(root / "nouns.txt"), nouns), str(root))
    return image, labels, ids, vocabulary


def _verified_rows(root: Path, name: str, entry: dict[str, Any]) -> np.ndarray:
    """Reads a file whose checksum must be that of the manifest, and scales its rows to norm 1."""
    rows = _array(root, name)
    if entry.get("sha256"):
        _check_sum(root, name, entry["sha256"])
    return unit_rows(rows, str(root / name))


def _check_files(root: Path, entry: dict[str, Any]) -> None:
    """Compares the small files of an entry with their checksums. All are in the directory itself."""
    for name, expected in entry.get("files", {}).items():
        if Path(name).name != name:
            raise ValueError(f"it names a file in another directory, {name[:100]!a}")
        _check_sum(root, name, expected)


def _check_sum(root: Path, name: str, expected: str) -> None:
    with (root / name).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != expected:
            raise UserError(f"{root / name} is not what {MANIFEST} says: delete {root} and embed it again")


def _array(root: Path, name: str) -> np.ndarray:
    with reading(root / name):
        check_npy(root / name)
        return np.load(root / name, mmap_mode="r", allow_pickle=False)


def _lines(path: Path) -> list[str]:
    with reading(path):
        return path.read_text(encoding="utf-8").splitlines()
