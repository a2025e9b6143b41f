"""Images to cluster: scikit-learn's digits, folders of files, generated ones; and new ones as a stream."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from clustering_jax.data.base import Dataset, blocks_of, row_ids
from clustering_jax.data.images.arrays import iter_array
from clustering_jax.data.images.decode import HEIC, MODES, decoded, fit_image, lazy_files
from clustering_jax.data.images.streaming import load_grain
from clustering_jax.data.images.synsets import SYNSETS
from clustering_jax.errors import UserError, nearest

EXTENSIONS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}) | HEIC
CHUNK = 512


def digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits, uint8 ``[n, 8, 8, 1]``, with labels; no download."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.rint(found.images[..., None] * (255 / 16)).astype(np.uint8)
    return Dataset({"image": images}, row_ids(len(images)), found.target.astype(np.int64), "digits", "all")


def synthetic(*, n: int = 256, size: int = 32, channels: int = 3, num_clusters: int = 10, seed: int = 0) -> Dataset:
    """Generated images: stripes whose angle and colour are the class's, with a random phase and noise.

    Returns:
      uint8 ``[n, size, size, channels]``, classes as equally many as `n` allows, in random order.
    """
    if min(n, size, num_clusters) < 1 or channels not in MODES:
        wrong = f"n {n}, size {size}, num_clusters {num_clusters}, channels {channels}"
        raise UserError(f"synthetic images of {wrong}: all must be positive, channels 1 or 3")
    rng = np.random.default_rng(seed)
    labels = rng.permutation(n) % num_clusters
    turn = (labels / num_clusters).astype(np.float32)[:, None, None, None]
    y, x = np.mgrid[:size, :size].astype(np.float32)[..., None] / size
    phase = rng.random((n, 1, 1, 1), np.float32)
    stripes = np.cos(2 * np.pi * (2 * (x * np.cos(np.pi * turn) + y * np.sin(np.pi * turn)) + phase))
    colour = 0.5 + 0.4 * np.cos(2 * np.pi * (turn + np.arange(channels, dtype=np.float32) / 3))
    noise = rng.normal(0, 0.05, (n, size, size, channels)).astype(np.float32)
    images = np.rint(255 * np.clip(colour * (0.7 + 0.3 * stripes) + noise, 0, 1)).astype(np.uint8)
    return Dataset({"image": images}, row_ids(n), labels.astype(np.int64), "synthetic", f"seed {seed}")


def folder(
    path: str | Path,
    *,
    size: int,
    labels_from_folders: bool = False,
    on_error: str = "error",
    classes: str | Sequence[str] = (),
    expected_count: int = 0,
    channels: int = 3,
    streaming: bool = False,
    shuffle_block: int = 0,
    shuffle_window: int = 16,
) -> Dataset:
    """Image files below a folder, flat or nested, decoded by threads into one array; no cache on disk.

    The rows are in natural order of their paths ("2.png" before "10.png"). EXIF orientation is applied,
    transparency dropped, 16-bit grey shortened to its high byte; the whole image is resized (antialiased
    bilinear, the aspect ratio is not kept). Files of other types and hidden ones are passed over.

    Args:
      path: the folder. size: side of the result in pixels.
      labels_from_folders: labels are the topmost folders, in natural order; otherwise there are none.
      on_error: "error" stops at an unreadable image, "skip" leaves it out and says so in the notes.
      classes: keep only these class folders of `path` or of ``path/train``: a list, or a name in `SYNSETS`.
      expected_count: how many images there must be; 0 is any. channels: 3 for RGB, 1 for grey.
      streaming: images are read when a batch wants them, the same as in memory. An unreadable one is found then; or,
        to be skipped, at the start, where every image is read once.
      shuffle_block, shuffle_window: see `Blocks`; 0 is a full shuffle.

    Returns:
      uint8 ``[n, size, size, channels]``; the ids are the files' paths relative to `path`.

    Raises:
      UserError: no such folder, no image in it, one unreadable, class folders missing, or another count.
    """
    shape, blocks = _shape(size, size, channels), blocks_of(shuffle_block, shuffle_window)
    root, names, labels, notes = listed(path, classes, expected_count, labels_from_folders, on_error)
    if streaming:
        load_grain()
    images = None if streaming else np.empty((len(names), *shape), np.uint8)
    kept, skipped = names, []
    if images is not None or on_error == "skip":
        kept, skipped = _readable(root, names, shape, on_error, images)
    if skipped:
        notes += (f"skipped {len(skipped)} unreadable of {len(names)} images in {root}: {skipped[0]}",)
    if not kept:
        raise UserError(f"none of the {len(names)} images in {root} can be read: {skipped[0]}")
    labels = None if labels is None else labels[np.isin(names, kept)]
    found = lazy_files(root, kept, shape) if images is None else images[: len(kept)]
    return Dataset({"image": found}, kept, labels, root.resolve().name, "all", notes, blocks=blocks)


def _readable(
    root: Path, names: list[str], shape: tuple[int, ...], on_error: str, images: np.ndarray | None
) -> tuple[list[str], list[str]]:
    """The names of images that can be read, one after the other into `images` if that is there, and what went wrong
    with the others."""
    kept: list[str] = []
    skipped: list[str] = []
    for ids, rows, failures in decoded(root, names, shape, CHUNK, on_error):
        if images is not None:
            images[len(kept) : len(kept) + len(ids)] = rows
        kept, skipped = kept + ids, skipped + failures
    return kept, skipped


def listed(
    path: str | Path,
    classes: str | Sequence[str],
    expected_count: int,
    labels_from_folders: bool,
    on_error: str,
) -> tuple[Path, list[str], np.ndarray | None, tuple[str, ...]]:
    """Root, paths of the images relative to it, labels and notes; arguments and errors of `folder`."""
    if on_error not in ("error", "skip"):
        raise UserError(f"on_error is '{on_error}': choose 'error' or 'skip'")
    root = _folder(path)
    class_folders = _class_folders(root, classes)
    names, notes = _listing(root, class_folders)
    if expected_count and len(names) != expected_count:
        raise UserError(_miscount(root, names, class_folders, expected_count))
    return root, names, _folder_labels(root, names, class_folders) if labels_from_folders else None, notes


def iter_folder(
    path: str | Path, size: int | tuple[int, int], chunk: int, *, channels: int = 3, on_error: str = "error"
) -> Iterator[tuple[list[str], np.ndarray]]:
    """The images that `folder` loads, up to `chunk` at a time, in constant memory.

    Yields ``(ids, uint8 [m, h, w, channels])``. size: side, or (height, width). With ``on_error="skip"`` the
    unreadable images are left out in silence.
    """
    shape = _shape(*((size, size) if isinstance(size, int) else size), channels)
    root = _folder(path)
    for ids, rows, _ in decoded(root, _listing(root, [])[0], shape, chunk, on_error):
        yield ids, rows


def iter_images(
    path: str | Path, shape: tuple[int, ...], chunk: int, *, on_error: str = "error"
) -> Iterator[tuple[list[str], np.ndarray]]:
    """`iter_folder` or `iter_array`, as `path` is, all images brought to `shape` (h, w, c).

    Yields ``(ids, uint8 [m, h, w, c])`` of up to `chunk` rows.
    """
    if Path(path).expanduser().is_dir():
        yield from iter_folder(path, (shape[0], shape[1]), chunk, channels=shape[2], on_error=on_error)
        return
    for ids, rows in iter_array(path, chunk):
        yield ids, fit_rows(rows, shape)


def fit_rows(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`fit_image` of each of uint8 ``[n, h, w, c]``."""
    if rows.shape[1:] == tuple(shape):
        return rows
    pictures = (Image.fromarray(row[..., 0] if row.shape[2] == 1 else row) for row in rows)
    return np.stack([fit_image(picture, shape) for picture in pictures])


def _shape(height: int, width: int, channels: int) -> tuple[int, int, int]:
    if min(height, width) < 1 or channels not in MODES:
        raise UserError(f"images of {height} x {width} x {channels}: size must be positive and channels 1 or 3")
    return height, width, channels


def _folder(path: str | Path) -> Path:
    found = Path(path).expanduser()
    if not str(path) or not found.exists():
        raise UserError(f"'{path}' does not exist: give a folder of images")
    if not found.is_dir():
        raise UserError(f"{found} is not a folder: for .npy and .npz files use the data source 'arrays'")
    return found


def _class_folders(root: Path, classes: str | Sequence[str]) -> list[Path]:
    """The folders of `classes`, natural order; empty for no choice."""
    if isinstance(classes, str) and classes:
        if classes not in SYNSETS:
            raise UserError(f"unknown class list '{classes}'{nearest(classes, SYNSETS)}")
        classes = SYNSETS[classes]
    base = root if any((root / name).is_dir() for name in classes) else root / "train"
    missing = [name for name in classes if not (base / name).is_dir()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(f"{root} lacks class folders of {len(classes)} wanted: {', '.join(missing[:3])}{more}")
    return [base / name for name in sorted(classes, key=_natural)]


def _natural(text: str) -> tuple:
    """Sorts numbers in names by value; the text itself decides between "1" and "01"."""
    parts = [re.split(r"(\d+)", part) for part in text.split("/")]
    return [[int(p) if i % 2 else p for i, p in enumerate(part)] for part in parts], text


def _walk(directory: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Files below `directory`; links are followed (subsets are often made of links), but not in circles."""
    real = os.path.realpath(directory)
    if real in above:
        return
    for entry in os.scandir(directory):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path), above | {real})
        elif entry.is_file():
            yield Path(entry.path)


def _listing(root: Path, class_folders: list[Path]) -> tuple[list[str], tuple[str, ...]]:
    """``(paths of the images relative to root, notes)``."""
    files = [f.relative_to(root).as_posix() for top in class_folders or [root] for f in _walk(top)]
    names = sorted((f for f in files if Path(f).suffix.lower() in EXTENSIONS), key=_natural)
    if not names:
        raise UserError(f"{root} holds no images (looked for {' '.join(sorted(EXTENSIONS))})")
    others = sorted(set(files).difference(names))
    if not others:
        return names, ()
    return names, (f"passed over {len(others)} files in {root} that are no images by name, first {others[0]}",)


def _miscount(root: Path, names: list[str], class_folders: list[Path], expected: int) -> str:
    """The message about a wrong number of images; names a class folder to blame where all should be alike."""
    message = f"{root} holds {len(names)} images, expected {expected}"
    if not class_folders or expected % len(class_folders):
        return f"{message}: check the path, or expected_count"
    counts, each = Counter(_classes(root, names, class_folders)), expected // len(class_folders)
    wrong = [f"{f.name} has {counts[f.name]}" for f in class_folders if counts[f.name] != each]
    return f"{message}, {each} of each class: {wrong[0]} ({len(wrong)} classes are wrong)"


def _classes(root: Path, names: list[str], class_folders: list[Path]) -> list[str]:
    """The class folder of every image, "" for one in none."""
    depth = len(class_folders[0].relative_to(root).parts) - 1 if class_folders else 0
    return [name.split("/")[depth] if name.count("/") > depth else "" for name in names]


def _folder_labels(root: Path, names: list[str], class_folders: list[Path]) -> np.ndarray:
    found = _classes(root, names, class_folders)
    if "" in found:
        raise UserError(f"{root / names[found.index('')]} is in no class folder: labels_from_folders needs one")
    known = sorted({f.name for f in class_folders} or set(found), key=_natural)
    if len(known) < 2:
        raise UserError(f"{root} has a single class folder, '{known[0]}': is the path one level too high?")
    ranks = {name: rank for rank, name in enumerate(known)}
    return np.array([ranks[name] for name in found], np.int64)
