"""The directory of a run: creates it, and checks that it belongs to the same config."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from clustering_jax.errors import UserError
from clustering_jax.files import read_json, write_json
from clustering_jax.parallel import any_process_blocking


def check_workdir(workdir: Path, config: Mapping[str, Any]) -> None:
    """Checks that a workdir is empty or holds a run of the same config.

    Args:
      workdir: directory of the run.
      config: the config of this run.

    Raises:
      UserError: the workdir holds a run of another config. The message names the keys that differ.
    """
    existing = read_json(workdir / "config.json")
    if existing is None:
        return
    ours, theirs = (flatten_dict(dict(c), sep=".", keep_empty_nodes=False) for c in (config, existing))
    # JSON has only lists, but `config` may have tuples.
    ours = {k: list(v) if isinstance(v, tuple) else v for k, v in ours.items()}
    keys = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
    if keys:
        changes = ", ".join(f"{k} ({theirs.get(k)!r} there, {ours.get(k)!r} now)" for k in keys)
        raise UserError(f"{workdir} holds a run of another config: {changes}; use a new --workdir or the same config")


def create_workdir(workdir: Path, config: Mapping[str, Any]) -> None:
    """Creates a workdir with config.json, and checks that all processes see the same directory.

    Args:
      workdir: directory of the run.
      config: the config of this run.

    Raises:
      UserError: the directory can't be written, or the processes do not share it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "config.json", config)
    except OSError as error:
        raise UserError(f"--workdir={workdir} can't be written ({error.strerror})") from error
    if jax.process_count() > 1 and any_process_blocking(not _appears(workdir / "config.json")):
        raise UserError(f"--workdir={workdir} is not shared: all processes need the same directory")


def _appears(path: Path) -> bool:
    """Whether the file exists within a minute, the time after which a network file system refreshes its cache."""
    until = time.monotonic() + 60
    while not path.exists() and time.monotonic() < until:
        time.sleep(1)
    return path.exists()
