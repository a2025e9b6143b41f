"""Small files: tolerant reading, writing as a whole or not at all, and checks of outputs before the work begins."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

from clustering_jax.errors import UserError
from clustering_jax.parallel import is_first


def is_local(path: Any) -> TypeGuard[str | Path]:
    """Whether `path` is on the local file system. Paths of buckets are objects of the package etils."""
    return isinstance(path, str | Path)


@contextmanager
def writing(path: Any) -> Iterator[None]:
    """Turns the errors of a file system into one line: a full disk, a quota, no permission, a broken device."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error.strerror or error}): see to the disk and start again"
        ) from error


def write_atomic(path: Any, lines: Iterable[str]) -> None:
    """Writes `lines` to `path`, which then holds either all of them or, after an error, its old content.

    Only process 0 writes. The file and its name are on the disk when the function returns. A symbolic link stays a
    link: the file that it names is written. File names that are not UTF-8 are written with their own bytes.

    Args:
      path: local path, or a path of a bucket as an object of the package etils.
      lines: lines of text, each with its line break.

    Raises:
      UserError: the file can't be written.
    """
    if not is_first():
        return
    if not is_local(path):
        with writing(path):
            path.write_text("".join(lines))  # writing an object of a bucket is atomic
        return
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():  # a pipe or a device can't be replaced
        _write_text(path, lines)
        return
    partial = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    try:
        _write_text(partial, lines)
        replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_text(path: Path, lines: Iterable[str]) -> None:
    with writing(path):
        file = path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
    with file:
        # Outside of `writing`: the lines may come from files that can't be read.
        for line in lines:
            with writing(path):
                file.write(line)
        with writing(path):
            file.flush()
            sync(file.fileno())


def replace(partial: Path, path: Path) -> None:
    """Gives a complete file its name, so that a power cut finds the old file or the new one."""
    with writing(path):
        partial.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            sync(directory)
        finally:
            os.close(directory)


def sync(descriptor: int) -> None:
    """Waits until the file is on the disk, where the file system can say so. Pipes and some others can't."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (22, 95):  # EINVAL, EOPNOTSUPP
            raise


def write_json(path: Any, value: Any) -> None:
    """Writes `value` as indented JSON with `write_atomic`."""
    write_atomic(path, [json.dumps(value, indent=2), "\n"])


def read_json(path: Any, kind: type | tuple[type, ...] = (dict, list)) -> Any:
    """Reads a JSON file that may be missing or damaged.

    Args:
      path: local path, or a path of etils.
      kind: what the file holds.

    Returns:
      The content; None if there is no such file, or if it is not JSON of that kind, which gives a warning.

    Raises:
      UserError: the file can't be read.
    """
    content = _content(path)
    if content is None:
        return None
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, kind):
        return value
    warnings.warn(f"{path} is damaged, and is not used", stacklevel=2)
    return None


def read_json_lines(path: Any) -> tuple[list[dict[str, Any]], bool]:
    """Reads a file of one JSON object per line, up to the first line that is damaged.

    Args:
      path: local path, or a path of etils.

    Returns:
      ``(objects, whole)``. A last line without a line break is still being written: it is left out, and is no damage.

    Raises:
      UserError: the file can't be read.
    """
    objects: list[dict[str, Any]] = []
    for line in (_content(path) or b"").splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        try:
            found = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            return objects, False
        if not isinstance(found, dict) or type(found.get("step")) is not int:
            return objects, False
        objects.append(found)
    return objects, True


def _content(path: Any) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror or error})") from error


def output_file(path: str | Path, flag: str, *inputs: str | Path) -> Path:
    """Checks, before the work begins, that a file can be written at its end.

    Args:
      path: the file; ``~`` is the home directory.
      flag: the flag that names it, for messages.
      inputs: files and folders that are read; the output must be none of them.

    Returns:
      The path.

    Raises:
      UserError: the path is a directory or an input, or its directory does not exist or can't be written.
    """
    file = Path(path).expanduser()
    real = Path(os.path.realpath(file))
    if not str(path) or real.is_dir():
        raise UserError(f"{flag}={path} is a directory: name a file")
    if not real.parent.is_dir():
        raise UserError(f"{flag}={path}: there is no directory {real.parent}")
    for name in inputs:
        read = Path(os.path.realpath(Path(name).expanduser()))
        if real.exists() and (real == read or read in real.parents or (read.exists() and real.samefile(read))):
            raise UserError(f"{flag}={path} is a file of the input {name}: name another one")
    if not real.exists() or real.is_file():
        _probe(real.parent, f"{flag}={path}")
    return file


def output_directory(path: str | Path, flag: str) -> Path:
    """Checks, before the work begins, that a directory can be written to. It need not exist, and is not created.

    Args:
      path: the directory; ``~`` is the home directory.
      flag: the flag that names it, for messages.

    Raises:
      UserError: the path is a file, or below one, or can't be written to.
    """
    directory = Path(path).expanduser()
    above = Path(os.path.realpath(directory))
    if above.exists() and not above.is_dir():
        raise UserError(f"{flag}={path} can't be written, it is a file: name a directory")
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        raise UserError(f"{flag}={path} can't be written ({above} is a file)")
    _probe(above, f"{flag}={path}")
    return directory


def _probe(directory: Path, what: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise UserError(f"{what} can't be written ({error.strerror})") from error


def remove_partials(directory: Path) -> None:
    """Removes the unfinished files that killed processes left in a directory that nobody else writes to."""
    for partial in directory.glob(".*.part"):
        with contextlib.suppress(OSError):
            partial.unlink()
