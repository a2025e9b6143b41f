"""Checkpoints that are verified when they are read.

Orbax writes checkpoints atomically. But it restores a flipped byte without an error, and it reports a truncated file by
one of four unrelated exceptions. So each checkpoint here carries a checksum of every leaf. A damaged checkpoint is set
aside, and the one before it is used.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from clustering_jax.errors import UserError
from clustering_jax.files import is_local
from clustering_jax.parallel import any_process_blocking, is_first
from clustering_jax.seal import sealed, unsealed


def checksums(tree: Any) -> dict[str, str]:
    """Returns a digest of the shape, type and bytes of every leaf, by the path of the leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    return {jax.tree_util.keystr(path): _digest(np.asarray(leaf)) for path, leaf in leaves}


def _digest(x: np.ndarray) -> str:
    digest = hashlib.blake2b(f"{x.shape}{x.dtype}".encode(), digest_size=16)
    if x.size:
        digest.update(np.ascontiguousarray(x).view(np.uint8).reshape(-1).data)
    return digest.hexdigest()


class OtherState(UserError):
    """A checkpoint is whole, but its arrays are not those of this run: it is not damaged."""


def _check_state(meta: dict[str, Any], abstract_state: Any, where: str) -> None:
    """Raises OtherState if the arrays of a checkpoint have other names, shapes or types than `abstract_state`."""
    leaves = jax.tree_util.tree_leaves_with_path({"state": abstract_state})
    ours = {jax.tree_util.keystr(path): [list(x.shape), str(x.dtype)] for path, x in leaves}
    theirs = meta.get("state", ours)  # an earlier version did not write them
    names = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    if names:
        there, here = theirs.get(names[0]), ours.get(names[0])
        raise OtherState(
            f"{where} is of another model: {len(names)} arrays differ, first {names[0]} ({there} there, {here} now); "
            "use a new workdir"
        )


class Store:
    """The checkpoints of one run.

    A checkpoint belongs to a step. It holds `state` (a tree of arrays), `targets` (arrays by name, possibly none) and
    `meta` (JSON values).

    Args:
      directory: the directory of the checkpoints. It is created if it does not exist.
      keep: number of checkpoints to keep, at least 2, so that there is an older one if the newest is damaged.
      read_only: whether nothing is written or moved.

    Raises:
      UserError: the directory can't be created.
    """

    def __init__(self, directory: str | Path, *, keep: int = 2, read_only: bool = False):
        self.directory = epath.Path(Path(directory).absolute() if is_local(directory) else directory)
        self._read_only = read_only
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.directory} can't be created ({error.strerror}): choose another workdir") from error
        options = ocp.CheckpointManagerOptions(
            max_to_keep=max(keep, 2),
            enable_async_checkpointing=False,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def save(self, step: int, state: Any, targets: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        """Writes a checkpoint and returns when it is on disk. An existing checkpoint of the step stays as it is.

        Args:
          step: number of steps taken.
          state: tree of arrays.
          targets: arrays by name.
          meta: JSON values.

        Raises:
          UserError: the checkpoint could not be written, for example because the disk is full. The earlier
            checkpoints are intact.
        """
        if step in self._manager.all_steps():
            return
        # As NumPy arrays: for JAX arrays, Orbax lets each device write a part and compiles a program for each part.
        state = jax.device_get(state)
        shapes = {k: [list(v.shape), str(v.dtype)] for k, v in targets.items()}
        leaves = jax.tree_util.tree_leaves_with_path({"state": state})
        arrays = {jax.tree_util.keystr(path): [list(np.shape(x)), str(np.asarray(x).dtype)] for path, x in leaves}
        sums = checksums({"state": state, "targets": targets})
        meta = sealed({**meta, "targets": shapes, "checksums": sums, "state": arrays})
        items = {"state": ocp.args.StandardSave(state), "meta": ocp.args.JsonSave(meta)}
        if targets:
            items["targets"] = ocp.args.StandardSave(targets)
        try:
            self._manager.save(step, args=ocp.args.Composite(**items))
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{self.directory}: checkpoint {step} could not be written ({reason})") from error

    def restore(self, abstract_state: Any) -> tuple[int, Any, dict[str, np.ndarray], dict[str, Any]] | None:
        """Reads the newest intact checkpoint.

        Args:
          abstract_state: tree of `jax.ShapeDtypeStruct` with the shardings to restore to.

        Returns:
          ``(step, state, targets, meta)``, or None if there is no checkpoint.

        Raises:
          UserError: every checkpoint is damaged, or the newest one is of another model.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        damaged: list[int] = []
        for step in steps:
            content, reason = None, "another process can't read it"
            try:
                content = self._read(step, abstract_state)
            except OtherState:
                raise
            except Exception as error:  # Orbax reports damage by unrelated types: Exception, ValueError, KeyError, ...
                reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            any_failed = any_process_blocking(content is None)
            if content is not None and not any_failed:
                self._set_aside(damaged)
                return step, *content
            if is_first():
                print(f"warning: checkpoint {step} of {self.directory} is damaged: {reason}", file=sys.stderr)
            damaged.append(step)
        if steps:
            raise UserError(f"{self.directory}: every checkpoint ({steps}) is damaged; start in a new workdir")
        return None

    def newest_meta(self) -> dict[str, Any] | None:
        """Returns the `meta` of the newest checkpoint whose `meta` is readable, or None."""
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._meta(step)
            except Exception:  # damage: `restore` reports it
                continue
        return None

    def _meta(self, step: int) -> dict[str, Any]:
        meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        return unsealed(meta)

    def _read(self, step: int, abstract_state: Any) -> tuple[Any, dict[str, np.ndarray], dict[str, Any]]:
        meta = self._meta(step)
        _check_state(meta, abstract_state, f"checkpoint {step} of {self.directory}")
        items = {"state": ocp.args.StandardRestore(abstract_state)}
        if meta["targets"]:
            shapes = {k: jax.ShapeDtypeStruct(*v) for k, v in meta["targets"].items()}
            items["targets"] = ocp.args.StandardRestore(shapes)
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        state = restored["state"]
        targets = {k: np.asarray(v) for k, v in (restored.get("targets") or {}).items()}
        actual = checksums({"state": state, "targets": targets})
        wrong = [path for path, digest in meta["checksums"].items() if actual.get(path) != digest]
        if wrong:
            raise ValueError(f"{len(wrong)} of {len(actual)} arrays differ from their checksums, first {wrong[0]}")
        return state, targets, meta

    def _set_aside(self, steps: list[int]) -> None:
        """Moves damaged checkpoints away, so that new ones can take their steps. Nothing is deleted.

        Only process 0 moves them; the others wait for it.
        """
        for step in [] if self._read_only or not is_first() else steps:
            folder = self.directory.parent / "damaged"
            folder.mkdir(exist_ok=True)
            names = (f"{self.directory.name}_{step}{suffix}" for suffix in ("", *(f"_{i}" for i in range(2, 10_000))))
            target = next(folder / name for name in names if not (folder / name).exists())
            # In a bucket, a directory exists only once something is in it.
            (target.parent / "README").write_text("Checkpoints that differ from their checksums; nothing reads them.\n")
            (self.directory / str(step)).rename(target)
        any_process_blocking(True)  # no process reads the directory before this is done
        self._manager.reload()

    def close(self) -> None:
        """Releases the directory."""
        self._manager.close()


def stored_meta(directory: Any) -> dict[str, Any] | None:
    """Returns the `meta` of the newest readable checkpoint; None if there is none, or no such directory."""
    if not (Path(directory) if is_local(directory) else directory).is_dir():
        return None
    store = Store(directory, read_only=True)
    try:
        return store.newest_meta()
    finally:
        store.close()
