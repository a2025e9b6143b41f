"""A lock of a directory. The system releases it when its process dies, in whatever way."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from clustering_jax.errors import UserError
from clustering_jax.files import is_local, output_directory, remove_partials
from clustering_jax.parallel import is_first

NAME = ".lock"


@contextmanager
def locked(directory: Any, flag: str) -> Iterator[None]:
    """Holds a directory against all other processes, by ``flock`` on a file in it, which it creates.

    Of several processes of one run, process 0 holds it. Directories in buckets have no locks. If nothing else was
    written, the directory is removed again.

    Args:
      directory: local path, or a path of etils.
      flag: the flag that names it, for messages.

    Raises:
      UserError: another process holds the directory (the message names its host and number), or it can't be written.
    """
    if not is_local(directory) or not is_first():
        yield
        return
    directory = output_directory(directory, flag)
    created = not directory.exists()
    descriptor = _hold(directory, flag)
    try:
        remove_partials(directory)
        yield
    finally:
        if created and os.listdir(directory) == [NAME]:
            with suppress(OSError):
                (directory / NAME).unlink()
                directory.rmdir()
        os.close(descriptor)


def _hold(directory: Path, flag: str) -> int:
    """Returns the open file that holds the lock."""
    while True:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(directory / NAME, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"{flag}={directory} can't be written ({error.strerror})") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                warnings.warn(
                    f"{flag}={directory}: this file system has no locks ({error.strerror}); see to it that one process "
                    "at a time uses the directory",
                    stacklevel=3,
                )
                return descriptor
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "another process"
            os.close(descriptor)
            raise UserError(f"{flag}={directory} is in use by {holder}: wait for it, or name another one") from error
        if _is_there(descriptor, directory / NAME):
            with suppress(OSError):  # on a full disk the lock holds, without the name of its holder
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            return descriptor
        os.close(descriptor)  # its holder removed the file in between


def _is_there(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
