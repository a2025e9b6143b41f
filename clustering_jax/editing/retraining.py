"""Trains a finished run on its corrected clusters, and describes its rows anew."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from clustering_jax.editing.known import Known
from clustering_jax.editing.state import State
from clustering_jax.editing.training import Training, retrained
from clustering_jax.editing.workdir import Finished
from clustering_jax.errors import UserError
from clustering_jax.files import write_json
from clustering_jax.inference import describe
from clustering_jax.inference.predictor import Predictor
from clustering_jax.inference.rows import unit


@contextmanager
def temporary(output: Path) -> Iterator[Path]:
    """A directory beside the output, which is removed at the end."""
    directory = output.with_name(f".{output.name}.{os.getpid()}.training")
    try:
        directory.mkdir(parents=True)
        yield directory
    except OSError as error:
        raise UserError(f"--output={output} can't be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def trained(
    directory: Path,
    config: Mapping[str, Any],
    run: Finished,
    state: State,
    clusters: np.ndarray,
    facts: Known,
    training: Training,
    *,
    quiet: bool,
) -> tuple[Finished, State]:
    """Trains a run.

    Args:
      directory: directory for the checkpoint, the log and the config.
      config: content of config.json of the run.
      run: the run, with its rows.
      state: its clusters.
      clusters: cluster of each row, int [n].
      facts: what is known of the rows.
      training: how to train.
      quiet: whether to print nothing while training.

    Returns:
      The run with the new model, and the state in which output i of the model is cluster ``facts.clusters[i]``.

    Raises:
      UserError: the method can't be trained on corrections.
      Diverged: a loss was not finite.
      Interrupted: a signal arrived.
    """
    predictor = retrained(run.predictor, run.dataset, facts, training, directory, quiet=quiet)
    write_config(directory, config, predictor)
    rows = zip(run.dataset.ids, clusters.tolist(), strict=True)
    fixed = {row: cluster for row, cluster in rows if cluster in state.locked}
    state = state._replace(
        outputs=tuple((cluster,) for cluster in facts.clusters), centroids={}, moved={**fixed, **state.moved}
    )
    return described(run, predictor), state


def write_config(directory: Path, config: Mapping[str, Any], predictor: Predictor) -> None:
    """Writes config.json, with the values that a checkpoint of one seed has."""
    changed = {name: predictor.config[name] for name in ("num_clusters", "num_seeds", "batch_size")}
    write_json(directory / "config.json", {**config, **changed})


def described(run: Finished, predictor: Predictor, *, calibrate: bool = True) -> Finished:
    """The run with another model, and with what that model says of each row.

    Args:
      run: the run, with its rows.
      predictor: the model.
      calibrate: whether to find the threshold of `reject` again.
    """
    features, config = run.dataset.features, {**predictor.config, "levels": ()}
    if not calibrate:
        config["reject"] = 0.0
    result = describe.describe(config, run.dataset, [predictor.model_proba(features)], 0, predictor.embed)
    texts = result.columns
    lines = [dict(zip(texts, line, strict=True)) for line in zip(*texts.values(), strict=True)]
    embedding = result.embedding if result.embedding.size else unit(predictor.embed(features))
    summary = {**run.result, **result.summary}
    return Finished(predictor, summary, None, run.dataset, lines, embedding, result.neighbours)
