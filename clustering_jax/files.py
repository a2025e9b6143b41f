"""Small files, read tolerantly and replaced in one move."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clustering_jax.parallel import is_first


def is_local(path: str | Path) -> bool:
    """Whether `path` is one of this machine, and not etils' of a bucket."""
    return isinstance(path, str | Path)


def write_atomic(path: str | Path, lines: Iterable[str]) -> None:
    """Writes `lines` to `path` so that it holds either its old content or all of the new; the first process does."""
    if not is_first():
        return
    if not is_local(path):
        path.write_text("".join(lines))  # an object in a bucket appears as a whole
        return
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """`write_atomic` of indented JSON."""
    write_atomic(path, [json.dumps(value, indent=2), "\n"])


def read_json(path: Path) -> Any:
    """Parsed JSON file, or None where it is absent or unreadable as JSON."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
