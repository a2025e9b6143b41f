"""Writes report.html, which shows the results of a run in one file. The command is in `__main__`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clustering_jax.data.base import Dataset
from clustering_jax.files import is_local, write_atomic
from clustering_jax.parallel import is_first
from clustering_jax.report import content, layout
from clustering_jax.report.page import page

NAME = "report.html"


def write(workdir: Path, kind: str = "pca") -> Path:
    """Writes the report of a workdir. If the data or the checkpoint is missing, the report leaves those parts out.

    Args:
      workdir: directory of the run.
      kind: kind of the map: "pca", "tsne" or "umap".

    Returns:
      The path of the report.

    Raises:
      UserError: the workdir holds no run, `kind` is unknown or needs a package that is not installed, or the report
        can't be written.
    """
    layout.check(kind)
    write_atomic(workdir / NAME, [page(content.of_workdir(workdir), kind)])
    return workdir / NAME


def at_end(workdir: Path, config: Mapping[str, Any], dataset: Dataset, embed: Callable, *, quiet: bool = False) -> None:
    """Writes the report of a run that has just finished. All processes call this, and the first one writes.

    Any error becomes a warning, because the result of the run must not be lost for it.

    Args:
      workdir: directory of the run.
      config: the config of the run, with the number of clusters.
      dataset: the scored data.
      embed: computes the embedding [n, d] of features.
      quiet: whether to print nothing.
    """
    with _as_warning():
        embedding = content.embedded(embed, dataset)
        if is_first():
            write_atomic(workdir / NAME, [page(content.of_run(workdir, config, dataset, embedding), "pca")])
            _say(workdir, quiet)


def if_missing(workdir: Path, *, quiet: bool = False) -> None:
    """Writes the report of a finished run that was stopped before its report. Any error becomes a warning.

    Args:
      workdir: directory of the run.
      quiet: whether to print nothing.
    """
    if is_first() and is_local(workdir) and not (workdir / NAME).exists():
        with _as_warning():
            write(workdir)
            _say(workdir, quiet)


def _say(workdir: Path, quiet: bool) -> None:
    if not quiet:
        print(f"report: {workdir / NAME}")


@contextmanager
def _as_warning() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        warnings.warn(f"the report was not written ({reason}); the result is complete without it", stacklevel=3)
