"""Exports the clusters of a run for other programs: files in one folder per cluster, or one Parquet table."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from clustering_jax.errors import UserError, nearest
from clustering_jax.files import output_directory, output_file, replace, writing
from clustering_jax.report import content
from clustering_jax.report.assigned import Assigned
from clustering_jax.report.content import Content
from clustering_jax.report.layout import check, points_of

KINDS = {"folders": "clusters", "parquet": "clusters.parquet"}  # with their places in the workdir


def export(workdir: Path, kind: str, output: Path | None = None, *, copy: bool = False, map_kind: str = "pca") -> str:
    """Exports the clusters of a run.

    Args:
      workdir: directory of the run.
      kind: "folders" or "parquet".
      output: a new directory, or the file; None is a place in the workdir, see KINDS.
      copy: for "folders": whether to copy the files; otherwise they are linked.
      map_kind: for "parquet": kind of the map, see `layout.MAPS`.

    Returns:
      A line that says what was written.

    Raises:
      UserError: the run, its data or its files are not there, a package is missing, or the output can't be written.
    """
    if kind not in KINDS:
        raise UserError(f"--export={kind} is unknown{nearest(kind, KINDS)}")
    output = output or workdir / KINDS[kind]
    if kind == "folders":
        target = new_directory(output)
        return folders(content.of_workdir(workdir, embed=False), target, copy=copy)
    parquet, target = _pyarrow(), output_file(output, "--output")
    check(map_kind)
    return table(content.of_workdir(workdir), target, map_kind, parquet)


def new_directory(path: Path) -> Path:
    """Checks that a directory can be written, and that it is new or empty."""
    directory = output_directory(path, "--output")
    if directory.is_dir() and any(directory.iterdir()):
        raise UserError(f"--output={path} is there already: give a new directory")
    return directory


def folders(content: Content, output: Path, *, copy: bool) -> str:
    """Puts the files of the rows into one folder per cluster, with their paths inside of the data's folder.

    Args:
      content: the content of the report.
      output: the directory, which appears when it is complete.
      copy: whether to copy the files; otherwise they are linked.
    """
    assigned, root = _assigned(content), content.folder
    if root is None:
        raise UserError(
            f"the rows of {content.workdir} are no files, or the files are gone: --export=folders needs a folder of "
            "images; --export=parquet writes any rows"
        )
    missing, partial = 0, output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with writing(output):
            partial.mkdir(parents=True)
            for name, cluster in zip(assigned.ids, assigned.clusters.tolist(), strict=True):
                missing += not _placed(root / name, partial / folder_name(content, cluster) / name, copy)
            partial.replace(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    gone = f"; {missing:,} files are gone" if missing else ""
    done = "copied" if copy else "linked"
    return f"{len(assigned.ids) - missing:,} files {done} in {len(os.listdir(output))} folders of {output}{gone}"


def _placed(source: Path, target: Path, copy: bool) -> bool:
    """Copies or links a file. Returns whether it is there."""
    if not source.is_file():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        shutil.copy2(source, target)
    else:
        target.symlink_to(source)
    return True


def folder_name(content: Content, cluster: int) -> str:
    """The name of a cluster's folder, such as "03_street_signs"."""
    if cluster < 0:
        return "no_cluster"
    number = f"{cluster:0{len(str(_assigned(content).k - 1))}}"
    words = "_".join(content.names[cluster]) if cluster < len(content.names) else ""
    return "_".join(filter(None, [number, re.sub(r"\W+", "_", words)[:60].strip("_")]))


def table(content: Content, path: Path, map_kind: str, parquet: ModuleType) -> str:
    """Writes one line for each row: id, cluster, name, probability, x, y, path, label, and the further columns.

    Args:
      content: the content of the report.
      path: the file.
      map_kind: kind of the map.
      parquet: the module pyarrow.parquet.
    """
    import pyarrow

    values, partial = columns(content, map_kind), path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with writing(path):
            parquet.write_table(pyarrow.table(values), partial)
        replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return f"{len(values['id']):,} rows written to {path}"


def columns(content: Content, map_kind: str) -> dict[str, list[Any]]:
    """The columns of the table. A value that is not known is None; a column without any is left out.

    Args:
      content: the content of the report.
      map_kind: kind of the map.
    """
    assigned, points = _assigned(content), points_of(content, map_kind)
    words = [", ".join(names) for names in content.names]
    clusters = assigned.clusters.tolist()
    places = np.full((len(assigned.ids), 2), np.nan)
    if points:
        places[points.rows] = points.places
    labels = content.dataset.labels if content.dataset else None
    values = {
        "id": list(map(_readable, assigned.ids)),
        "cluster": clusters,
        "name": [(words[c] if 0 <= c < len(words) else "") or None for c in clusters],
        "probability": assigned.confidence.tolist(),
        "x": _known(places[:, 0]),
        "y": _known(places[:, 1]),
        "path": [_readable(str(content.folder / name)) for name in assigned.ids] if content.folder else [None],
        "label": [None] if labels is None else [label if label >= 0 else None for label in labels.tolist()],
        **{name: _known(column) for name, column in assigned.columns.items()},
    }
    return {name: column for name, column in values.items() if any(value is not None for value in column)}


def _known(values: np.ndarray) -> list[Any]:
    """Numbers, as whole ones where all are; NaN becomes None."""
    whole = not np.any(values[~np.isnan(values)] % 1)
    return [None if value != value else int(value) if whole else value for value in values.tolist()]


def _readable(text: str) -> str:
    """Text as UTF-8; bytes of a file name that are not UTF-8 are replaced."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _assigned(content: Content) -> Assigned:
    if content.assigned is None:
        raise UserError(f"{content.workdir} has no assignments: {'; '.join(content.notes) or 'the run has not ended'}")
    return content.assigned


def _pyarrow() -> ModuleType:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError("--export=parquet needs pyarrow: pip install 'clustering_jax[tables]'") from error
    return parquet
