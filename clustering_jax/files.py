"""Small files: tolerant reading, writing as a whole or not at all, and checks of outputs before the work begins."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

from clustering_jax.errors import UserError
from clustering_jax.parallel import is_first
from clustering_jax.seal import sealed, unsealed

# Halves of characters, which UTF-8 can't hold; file names that are not UTF-8 have others.
_HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def is_local(path: Any) -> TypeGuard[str | Path]:
    """Whether `path` is on the local file system. Paths of buckets are objects of the package etils."""
    return isinstance(path, str | Path)


@contextmanager
def writing(path: Any) -> Iterator[None]:
    """Turns the errors of a file system into one line: a full disk, a quota, no permission, a broken device."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} can't be written ({reason_of(error)}): see to the disk and start again") from error


def reason_of(error: OSError) -> str:
    """Returns why the system refused, without its number. An error of `shutil.copytree` holds one for each file."""
    while isinstance(error.args[0] if error.args else None, list):
        *_, text = error.args[0][0]
        error = OSError(re.sub(r"^\[Errno \d+\] ", "", str(text)))
    return error.strerror or str(error)


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
            path.write_text(_HALVES.sub("\ufffd", "".join(lines)))  # writing an object of a bucket is atomic
        return
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():  # a pipe or a device can't be replaced
        _write_text(path, lines, path)
        return
    partial = _unfinished(path)
    try:
        _write_text(partial, lines, path)
        replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    """Returns the name under which `path` is written at first, and removes what killed processes left under such names.

    A process on another machine may be writing there, so that only what has been left alone for an hour is removed.
    """
    for left in path.parent.glob(f".{glob.escape(path.name[:200])}.*.part"):
        with contextlib.suppress(OSError):
            if left.stat().st_mtime < time.time() - 3600:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    return path.with_name(f".{path.name[:200]}.{os.getpid()}.part")


@contextmanager
def new_directory(output: Path, flag: str) -> Iterator[Path]:
    """Makes a directory that appears when it is complete.

    Args:
      output: the directory; it does not exist, or is empty. A link stays a link.
      flag: the flag that names it, for messages.

    Yields:
      An empty directory beside it, which gets its name at the end, and is removed after an error.

    Raises:
      UserError: the directory, or a file in it, can't be written.
    """
    real = Path(os.path.realpath(output))
    partial = _unfinished(real)
    try:
        partial.mkdir(parents=True)
        yield partial
        replace(partial, real)
    except OSError as error:
        raise UserError(f"{flag}={output} can't be written ({reason_of(error)})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_text(path: Path, lines: Iterable[str], name: Path) -> None:
    """Writes `lines`; `name` is the path for messages."""
    with writing(name):
        file = path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
    try:
        # Outside of `writing`: the lines may come from files that can't be read.
        for line in lines:
            with writing(name):
                file.write(_HALVES.sub("\ufffd", line))
        with writing(name):
            file.flush()
            sync(file.fileno())
            file.close()
    finally:
        with contextlib.suppress(OSError):  # after an error, closing tries to write once more
            file.close()


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
    """Writes `value` as indented JSON with `write_atomic`. An object gets a checksum, see `seal`."""
    value = sealed(value) if isinstance(value, dict) else value
    write_atomic(path, [json.dumps(value, indent=2), "\n"])


def read_json(path: Any, kind: type | tuple[type, ...] = (dict, list)) -> Any:
    """Reads a JSON file that may be missing or damaged.

    Args:
      path: local path, or a path of etils.
      kind: what the file holds.

    Returns:
      The content without its checksum; None if there is no such file, or if it is not JSON of that kind or differs
      from its checksum, which gives a warning.

    Raises:
      UserError: the file can't be read.
    """
    content = _content(path)
    if content is None:
        return None
    try:
        value = json.loads(content.decode("utf-8"))
        value = unsealed(value) if isinstance(value, dict) else value
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, kind):
        return value
    warnings.warn(f"{path} is damaged, and is not used", stacklevel=2)
    return None


def read_json_lines(path: Any) -> tuple[list[dict[str, Any]], bool]:
    """Reads a file of one JSON object per line, up to the first line that is damaged or differs from its checksum.

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
            if not isinstance(found, dict) or type(found.get("step")) is not int:
                return objects, False
            objects.append(unsealed(found))
        except (ValueError, RecursionError):
            return objects, False
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
