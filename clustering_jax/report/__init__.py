"""report.html: what a run found, in one file for people. Imported by `run`; as a command see `__main__`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clustering_jax.data.base import Dataset
from clustering_jax.errors import UserError
from clustering_jax.files import write_atomic
from clustering_jax.parallel import is_first
from clustering_jax.report import content, layout
from clustering_jax.report.page import page

NAME = "report.html"


def write(workdir: Path, kind: str = "pca") -> Path:
    """Writes the report of any workdir, as far as its data and checkpoint are there, and returns its path.

    Raises:
      UserError: there is no run in it, or `kind` is no map (pca, tsne, umap) or needs what is not installed; the report
        can't be written.
    """
    layout.check(kind)
    text = page(content.of_workdir(workdir), kind)
    try:
        write_atomic(workdir / NAME, [text])
    except OSError as error:
        raise UserError(f"{workdir / NAME} can't be written ({error.strerror})") from error
    return workdir / NAME


def at_end(workdir: Path, config: Mapping[str, Any], dataset: Dataset, embed: Callable, *, quiet: bool = False) -> None:
    """Writes the report of a run that has just finished; all its processes call this, and the first writes.

    What goes wrong is a warning, since the run's result must not be lost over it.

    Args:
      config: with the number of clusters. dataset: what was scored. embed: ``features -> [n, d]``. quiet: prints
        nothing.
    """
    try:
        embedding = content.embedded(embed, dataset)
        if is_first():
            write_atomic(workdir / NAME, [page(content.of_run(workdir, config, dataset, embedding), "pca")])
            if not quiet:
                print(f"report: {workdir / NAME}")
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        warnings.warn(f"there is no report ({reason}); the result is complete without it", stacklevel=2)
