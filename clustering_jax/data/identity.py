"""What data a run, an embedding or a fitted estimator belongs to: digests that are compared before it goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clustering_jax.data.base import Dataset
from clustering_jax.data.images.streaming import LazyArray

# Arrays up to this size are digested as a whole, larger ones by so many blocks of so many bytes.
WHOLE, BLOCKS, BLOCK = 2**30, 1024, 2**16
# Pictures of a streamed set that are read, and files whose sizes are asked for, which takes long for millions of them.
PICTURES, SIZES = 64, 10_000


def identity(dataset: Dataset) -> dict[str, Any]:
    """Describes a data set so that another one is recognised, even one of the same shape.

    Args:
      dataset: any data set, with scaled or raw features.

    Returns:
      The number of rows, and a digest of each part (ids, features, labels, scaling, words), for JSON.
    """
    parts: dict[str, Any] = {"rows": dataset.num_examples, "ids": digest_of_text(dataset.ids)}
    parts |= {name: _digest(array) for name, array in dataset.features.items()}
    if dataset.labels is not None:
        parts["labels"] = _digest(dataset.labels)
    if dataset.scalings is not None:
        parts["scaling"] = digest_of_text(dataset.scalings)
    if dataset.vocabulary is not None:
        parts["words"] = digest_of_text(dataset.vocabulary.words)
        parts["nouns"] = _digest(dataset.vocabulary.embeddings)
    return parts


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Names what differs between two identities: "rows (80, now 30), view0, labels"; "" if nothing does."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    counts = f"rows ({before.get('rows')}, now {now.get('rows')})"
    # Other rows have other ids too, which would say no more.
    names = [name for name in names if name != "ids" or "rows" not in names]
    return ", ".join(counts if name == "rows" else name for name in names)


def path_mark(path: Any) -> str:
    """A digest of the names, sizes and times of the files at a path, which costs little; "" if there is no such path.

    Args:
      path: a file, a folder, or several files with commas. Anything else has no mark.
    """
    if not isinstance(path, str | Path) or not str(path):
        return ""
    names = [str(path)] if os.path.exists(os.path.expanduser(path)) else str(path).split(",")
    roots = [Path(name.strip()).expanduser() for name in names]
    if not all(root.exists() for root in roots):
        return ""
    inside = (sorted(root.rglob("*")) if root.is_dir() else [root] for root in roots)
    files = [str(file) for each in inside for file in each if not file.is_dir()]
    return files_digest(Path(), files, times=True)


def files_digest(root: Path, names: Sequence[str], *, times: bool) -> str:
    """A digest of the names and the sizes of files.

    Args:
      root: the folder.
      names: paths of the files, relative to `root`.
      times: whether the sizes and the times of all files enter. A copy of the files then has another digest. Otherwise
        only the sizes of `SIZES` of them do.
    """
    chosen = names if times else names[:: max(1, len(names) // SIZES)]
    return digest_of_text([*names, *_facts(root, chosen, times)])


def _facts(root: Path, names: Sequence[str], times: bool) -> Iterable[tuple]:
    for name in names:
        try:
            found = os.stat(root / name)
        except OSError:  # whoever reads the file says so
            yield name, -1
            continue
        yield (name, found.st_size, found.st_mtime_ns) if times else (name, found.st_size)


def digest_of_text(value: Any) -> str:
    """A digest of strings, numbers, and lists and dictionaries of them."""
    value = list(value) if not isinstance(value, Mapping | str) else value
    return _hash(json.dumps(value, sort_keys=True, default=_plain).encode())


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _digest(array: Any) -> str:
    if isinstance(array, LazyArray):
        rows = np.unique(np.linspace(0, len(array) - 1, PICTURES).astype(int))
        read = (np.ascontiguousarray(picture).data for picture in array.read(rows))
        return _hash(f"{array.shape}{array.mark()}".encode(), *read)
    array = np.asarray(array)
    head = f"{array.shape}{array.dtype.str}".encode()
    if array.nbytes <= WHOLE or not array.flags.c_contiguous:
        return _hash(head, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    flat = array.reshape(-1).view(np.uint8)
    starts = np.linspace(0, flat.size - BLOCK, BLOCKS).astype(np.int64)
    return _hash(head, *(np.ascontiguousarray(flat[start : start + BLOCK]).data for start in starts))


def _hash(*parts: Any) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
