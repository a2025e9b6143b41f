"""Reading and atomic writing of small files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeGuard

from clustering_jax.parallel import is_first


def is_local(path: Any) -> TypeGuard[str | Path]:
    """Whether `path` is on the local file system. Paths of buckets are objects of the package etils."""
    return isinstance(path, str | Path)


def write_atomic(path: Any, lines: Iterable[str]) -> None:
    """Writes `lines` to `path`, which then holds either all of them or, after an error, its old content.

    Only process 0 writes.

    Args:
      path: local path, or a path of a bucket as an object of the package etils.
      lines: lines of text, each with its line break.
    """
    if not is_first():
        return
    if not is_local(path):
        path.write_text("".join(lines))  # writing an object of a bucket is atomic
        return
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Any, value: Any) -> None:
    """Writes `value` as indented JSON with `write_atomic`."""
    write_atomic(path, [json.dumps(value, indent=2), "\n"])


def read_json(path: Path) -> Any:
    """The parsed JSON file, or None if there is no such file or it is not JSON."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
