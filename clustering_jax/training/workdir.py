"""The directory of a run: creates it, and checks that it belongs to the same config."""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from clustering_jax import data
from clustering_jax.data.base import Dataset
from clustering_jax.data.identity import changes, identity, path_mark
from clustering_jax.errors import UserError, reading
from clustering_jax.files import read_json, write_json, writing
from clustering_jax.parallel import any_process_blocking, is_first, text_of_first
from clustering_jax.training.checkpoint import stored_meta

ASSIGNMENTS = "assignments.csv"


def check_workdir(workdir: Path, config: Mapping[str, Any]) -> None:
    """Checks that a workdir is empty or holds a run of the same config.

    Args:
      workdir: directory of the run.
      config: the config of this run.

    Raises:
      UserError: the workdir holds a run of another config. The message names the keys that differ.
    """
    existing = read_json(workdir / "config.json", dict)
    if existing is None:
        return
    _refuse_other(workdir, existing, config)


def check_run(workdir: Path, config: Mapping[str, Any], streams: Mapping[str, Dataset]) -> dict[str, Any]:
    """Checks that a run goes on with the config and the data that it began with.

    Args:
      workdir: directory of the run.
      config: the resolved config of this run.
      streams: data sets by stream name.

    Returns:
      `identity` of the data set of each stream.

    Raises:
      UserError: the config or the data differ. The message names what does.
    """
    found = {name: identity(dataset) for name, dataset in streams.items()}
    check_agreement({**config, "data of": found})
    meta = stored_meta(workdir / "checkpoints")
    if meta is None:
        return found
    # Embeddings of a workdir have its path, and it may have been moved; the data themselves are compared below.
    there, here = (_without_paths(c) for c in (meta["config"], config))
    _refuse_other(workdir, there, here)
    for stream, ours in found.items():
        changed = changes(meta.get("data", {}).get(stream, ours), ours)
        if changed:
            what = "data" if stream == "train" else f"{stream} data"
            raise UserError(f"{workdir} holds a run on other {what}, they differ in {changed}: use a new workdir")
    return found


def changed_since(workdir: Path, config: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Names what differs between the data of a finished run and what lies at their path now; "" if nothing is known to.

    The data are read only if their files have other names, sizes or times than at the end of the run.

    Args:
      workdir: directory of the run.
      config: the config of the command.
      result: content of result.json.
    """
    mark = path_mark(config["data"].get("path"))
    if not mark or result.get("data_mark") in (None, mark):
        return ""
    meta = stored_meta(workdir / "checkpoints")
    if not meta or "train" not in meta.get("data", {}):
        return ""
    options = {name: value for name, value in meta["config"]["data"].items() if name != "identity"}
    try:
        dataset = data.load(**{**options, "path": config["data"]["path"]})
    except UserError:
        return "their files"
    return changes(meta["data"]["train"], identity(dataset))


def check_agreement(description: Mapping[str, Any]) -> None:
    """Checks that all processes of a run have the same config and data, before the first step.

    Args:
      description: config and data of this process, for JSON.

    Raises:
      UserError: they differ. Of the processes, those that differ from process 0 name what does.
    """
    first = json.loads(text_of_first(json.dumps(description)))
    changed = differences(first, description)
    if any_process_blocking(bool(changed)):
        listed = ", ".join(f"{key} ({there!r} in process 0, {here!r} here)" for key, (there, here) in changed.items())
        raise UserError(
            f"the processes of this run disagree: process {jax.process_index()} has "
            f"{listed or 'what process 0 has; another one says what differs'}: start all of them alike"
        )


def _without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    groups = {name: config.get(name) for name in ("data", "scored")}
    return {**config, **{name: {**group, "path": ""} for name, group in groups.items() if group}}


def _refuse_other(workdir: Path, existing: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    keys = differences(existing, config)
    data = [key for key in keys if key.startswith("data.identity.")]
    if data and data == list(keys):
        before, now = ({**c["data"].get("identity", {})} for c in (existing, config))
        raise UserError(
            f"{workdir} holds a run on other data, they differ in {changes(before, now)}: use a new workdir"
        )
    if keys:
        listed = ", ".join(f"{key} ({there!r} there, {here!r} now)" for key, (there, here) in keys.items())
        raise UserError(f"{workdir} holds a run of another config: {listed}; use a new --workdir or the same config")


def differences(existing: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The values of two configs that differ, by their dotted names. A tuple equals a list, which JSON makes of it."""
    theirs, ours = (flatten_dict(json.loads(json.dumps(dict(c))), sep=".") for c in (existing, config))
    names = sorted(ours.keys() | theirs.keys())
    return {n: (theirs.get(n), ours.get(n)) for n in names if theirs.get(n) != ours.get(n)}


def finished(workdir: Path) -> dict[str, Any] | None:
    """Returns the content of result.json of a finished run; None for a run that is not finished."""
    result = read_json(workdir / "result.json", dict)
    kinds = {"scores": dict, "protocol": dict, "baselines": list, "seed": int, "wall_time_seconds": int | float}
    if result is None:
        return None
    whole = all(isinstance(result.get(name), kind) for name, kind in kinds.items())
    try:
        # The seed is used to predict, so that it is checked against the criteria, which it follows from.
        each = result["seeds"]["each"] if whole and "seeds" in result else []
        defined = all(math.isfinite(scores["criterion"]) for scores in each)
        whole &= not (each and defined) or result["seed"] == min(each, key=lambda row: row["criterion"])["seed"]
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        warnings.warn(f"{workdir / 'result.json'} is damaged, and is not used", stacklevel=2)
        return None
    return result


def write_result(workdir: Path, result: Mapping[str, Any], path: Any = None) -> dict[str, Any]:
    """Writes result.json, the last file of a run, with a checksum of the assignments and a mark of the data.

    Args:
      workdir: directory of the run.
      result: scores and facts of the run.
      path: where the data are, or None.

    Returns:
      The content of result.json.
    """
    content = dict(result)
    if is_first():
        content["files"] = {ASSIGNMENTS: _sha256(workdir / ASSIGNMENTS)}
    if mark := path_mark(path):
        content["data_mark"] = mark
    write_json(workdir / "result.json", content)
    return content


def check_assignments(workdir: Path, result: Mapping[str, Any]) -> None:
    """Raises UserError if assignments.csv is not the file that belongs to `result`, or can't be read."""
    expected = result.get("files", {}).get(ASSIGNMENTS)
    with reading(workdir / ASSIGNMENTS):
        actual = _sha256(workdir / ASSIGNMENTS)
    if expected not in (None, actual):
        raise UserError(f"{workdir / ASSIGNMENTS} was changed or damaged after the run: copy it back, or train again")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def create_workdir(workdir: Path, config: Mapping[str, Any]) -> None:
    """Creates a workdir with config.json, and checks that all processes see the same directory.

    Args:
      workdir: directory of the run.
      config: the config of this run.

    Raises:
      UserError: the directory can't be written, or the processes do not share it.
    """
    with writing(f"--workdir={workdir}"):
        workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / "config.json", config)
    if jax.process_count() > 1 and any_process_blocking(not _appears(workdir / "config.json")):
        raise UserError(f"--workdir={workdir} is not shared: all processes need the same directory")


def _appears(path: Path) -> bool:
    """Whether the file exists within a minute, the time after which a network file system refreshes its cache."""
    until = time.monotonic() + 60
    while not path.exists() and time.monotonic() < until:
        time.sleep(1)
    return path.exists()
