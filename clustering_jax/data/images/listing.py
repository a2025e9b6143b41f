"""Lists the image files of a folder, in natural order, and the class folders that they are in."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from clustering_jax.data.images.decode import HEIC
from clustering_jax.data.images.synsets import SYNSETS
from clustering_jax.errors import UserError, nearest

EXTENSIONS = (
    frozenset({".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}) | HEIC
)


def list_images(
    path: str | Path,
    classes: str | Sequence[str],
    expected_count: int,
    labels_from_folders: bool,
    on_error: str,
) -> tuple[Path, list[str], np.ndarray | None, tuple[str, ...]]:
    """Lists the images of a folder. The arguments and errors are those of `clustering_jax.data.images.folder.folder`.

    Returns:
      ``(folder, paths of the images relative to it, labels int64 [n] or None, notes)``.
    """
    if on_error not in ("error", "skip"):
        raise UserError(f"on_error is '{on_error}': choose 'error' or 'skip'")
    root = existing_folder(path)
    class_folders = _class_folders(root, classes)
    names, notes = image_paths(root, class_folders, on_error)
    if expected_count and len(names) != expected_count:
        raise UserError(_miscount(root, names, class_folders, expected_count))
    return root, names, _folder_labels(root, names, class_folders) if labels_from_folders else None, notes


def existing_folder(path: str | Path) -> Path:
    """Returns `path` as a folder. UserError if there is none."""
    root = Path(path).expanduser()
    if not str(path) or not root.exists():
        raise UserError(f"'{path}' does not exist: give a folder of images")
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: for .npy and .npz files use the data source 'arrays'")
    return root


def _class_folders(root: Path, classes: str | Sequence[str]) -> list[Path]:
    """Returns the folders of `classes` in natural order; none if `classes` is empty."""
    if isinstance(classes, str) and classes:
        if classes not in SYNSETS:
            raise UserError(f"unknown class list '{classes}'{nearest(classes, SYNSETS)}")
        classes = SYNSETS[classes]
    base = root if any((root / name).is_dir() for name in classes) else root / "train"
    missing = [name for name in classes if not (base / name).is_dir()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(f"{root} lacks class folders of the {len(classes)} given: {', '.join(missing[:3])}{more}")
    return [base / name for name in sorted(classes, key=_natural)]


def _natural(text: str) -> tuple:
    """Returns a sort key that compares numbers in names by value. The text itself decides between "1" and "01"."""
    parts = [re.split(r"(\d+)", part) for part in text.split("/")]
    return [[int(p) if i % 2 else p for i, p in enumerate(part)] for part in parts], text


def walk(directory: Path, failures: list[str], above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yields the files below `directory`. It follows links, because subsets are often made of links, but no cycles.

    Folders that can't be read are added to `failures`.
    """
    real = os.path.realpath(directory)
    if real in above:
        return
    try:
        entries = list(os.scandir(directory))
    except OSError as error:
        failures.append(f"{directory} can't be read ({error.strerror})")
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from walk(Path(entry.path), failures, above | {real})
        elif entry.is_file():
            yield Path(entry.path)


def image_paths(root: Path, class_folders: list[Path], on_error: str = "error") -> tuple[list[str], tuple[str, ...]]:
    """Returns ``(paths of the images relative to root, notes)``."""
    failures: list[str] = []
    files = [f.relative_to(root).as_posix() for top in class_folders or [root] for f in walk(top, failures)]
    if failures and on_error == "error":
        raise UserError(f"{failures[0]}; change its permissions, or set on_error to skip")
    names = sorted((f for f in files if Path(f).suffix.lower() in EXTENSIONS), key=_natural)
    others = sorted(set(files).difference(names))
    heic = any(Path(name).suffix.lower() in (".heic", ".heif") for name in others)
    hint = '; to read HEIC: pip install "clustering_jax[heic]"' if heic else ""
    if not names:
        holds = f", it holds {others[0]}{hint}" if others else ""
        raise UserError(f"{root} holds no images (looked for {' '.join(sorted(EXTENSIONS))}){holds}")
    skipped = (f"skipped {len(failures)} folders: {failures[0]}",) if failures else ()
    if not others:
        return names, skipped
    return names, (
        *skipped,
        f"ignored {len(others)} files in {root} that have no image extension, first {others[0]}{hint}",
    )


def _miscount(root: Path, names: list[str], class_folders: list[Path], expected: int) -> str:
    """Returns the message about a wrong number of images. It names a wrong class folder if all should be equal."""
    message = f"{root} holds {len(names)} images, expected {expected}"
    if not class_folders or expected % len(class_folders):
        return f"{message}: check the path, or expected_count"
    counts, each = Counter(_classes(root, names, class_folders)), expected // len(class_folders)
    wrong = [f"{f.name} has {counts[f.name]}" for f in class_folders if counts[f.name] != each]
    return f"{message}, {each} of each class: {wrong[0]} ({len(wrong)} classes are wrong)"


def _classes(root: Path, names: list[str], class_folders: list[Path]) -> list[str]:
    """Returns the class folder of every image, "" for an image outside of them."""
    depth = len(class_folders[0].relative_to(root).parts) - 1 if class_folders else 0
    return [name.split("/")[depth] if name.count("/") > depth else "" for name in names]


def _folder_labels(root: Path, names: list[str], class_folders: list[Path]) -> np.ndarray:
    classes = _classes(root, names, class_folders)
    if "" in classes:
        raise UserError(f"{root / names[classes.index('')]} is in no class folder: labels_from_folders needs one")
    known = sorted({f.name for f in class_folders} or set(classes), key=_natural)
    if len(known) < 2:
        raise UserError(f"{root} has a single class folder, '{known[0]}': is the path one level too high?")
    ranks = {name: rank for rank, name in enumerate(known)}
    return np.array([ranks[name] for name in classes], np.int64)
