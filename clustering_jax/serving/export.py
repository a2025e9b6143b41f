"""Writes a trained model as a directory that can predict without the run and without the code of the methods."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import jax

from clustering_jax.errors import UserError
from clustering_jax.inference.predictor import Predictor
from clustering_jax.inference.results import versions
from clustering_jax.methods import from_config
from clustering_jax.serving.artefact import (
    ARTEFACT,
    FORMAT,
    MANIFEST,
    PARAMS,
    PREPROCESSING,
    SUMS,
    Contents,
    flatbuffers_or_error,
    sha256,
    to_npz,
)
from clustering_jax.serving.inputs import Inputs, preprocessing

PLATFORMS = ("cpu", "cuda", "tpu")


def of_run(workdir: str | Path) -> Contents:
    """Reads the model of a finished or unfinished run from its newest checkpoint.

    Args:
      workdir: directory of the run. If the run has several seeds, the seed that the run selected is read.

    Returns:
      The contents to export.

    Raises:
      UserError: see `Predictor.restore`.
    """
    run = Predictor.restore(workdir)
    manifest = {
        "format": FORMAT,
        "method": run.config["method"],
        "num_clusters": run.config["num_clusters"],
        "names": run.names,
        "config": run.config,
    }
    inputs = preprocessing(run.shapes, run.scalings, run.config["data"])
    return Contents(manifest, inputs, jax.device_get(run.variables))


def artefact(contents: Contents, platforms: tuple[str, ...] = PLATFORMS) -> jax.export.Exported:
    """Exports the prediction of a model as a `jax.export` artefact.

    Args:
      contents: the model.
      platforms: platforms that the artefact can run on.

    Returns:
      The function ``(variables, features) -> [n, k]`` for any number of rows n.
    """
    # The number of steps matters only for the schedule of the optimiser, and nothing is trained here.
    method = from_config(contents.manifest["config"], {"train": 1})
    (n,) = jax.export.symbolic_shape("n")
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), contents.variables)
    features = Inputs.from_preprocessing(contents.preprocessing).signature(n)
    return jax.export.export(jax.jit(method.predict), platforms=platforms)(abstract, features)


def write(contents: Contents, output: str | Path) -> None:
    """Writes a model as a directory. The directory appears only when it is complete.

    Args:
      contents: the model.
      output: the directory. It must not exist, or must be empty.

    Raises:
      UserError: `output` is not empty or can't be written, or flatbuffers is not installed.
    """
    flatbuffers_or_error()
    output = Path(os.path.abspath(Path(output).expanduser()))
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"--output={output} exists and is not an empty directory: give a new one")
    manifest = {**contents.manifest, "platforms": list(PLATFORMS), "versions": versions()}
    files = {
        ARTEFACT: bytes(artefact(contents).serialize()),
        PARAMS: to_npz(contents.variables),
        PREPROCESSING: json.dumps(contents.preprocessing).encode(),
        MANIFEST: json.dumps(manifest, indent=2).encode(),
    }
    files[SUMS] = "".join(f"{sha256(data)}  {name}\n" for name, data in files.items()).encode()
    partial = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        for name, data in files.items():
            (partial / name).write_bytes(data)
        partial.rename(output)
    except OSError as error:
        raise UserError(f"--output={output} can't be written ({error.strerror})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
