"""Writes a trained model as a directory that needs neither the run nor the methods to predict."""

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
    digest,
    flatbuffers_or_error,
    packed,
)
from clustering_jax.serving.inputs import Inputs, preprocessing

PLATFORMS = ("cpu", "cuda", "tpu")


def of_run(workdir: str | Path) -> Contents:
    """What is to be exported of the newest checkpoint of a run; of several seeds the one that the run kept.

    Raises:
      UserError: as `Predictor.restore`.
    """
    run = Predictor.restore(workdir)
    told = {"method": run.config["method"], "num_clusters": run.config["num_clusters"], "names": run.names}
    manifest = {"format": FORMAT, **told, "config": run.config}
    inputs = preprocessing(run.shapes, run.scalings, run.config["data"])
    return Contents(manifest, inputs, jax.device_get(run.variables))


def artefact(found: Contents, platforms: tuple[str, ...] = PLATFORMS) -> jax.export.Exported:
    """``(variables, features) -> [n, k]`` for any n, in the form that suits each of `platforms`."""
    # Of the run's length only the optimiser's schedule would know, and nothing is trained.
    method = from_config(found.manifest["config"], {"train": 1})
    (n,) = jax.export.symbolic_shape("n")
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), found.variables)
    features = Inputs.of(found.preprocessing).signature(n)
    return jax.export.export(jax.jit(method.predict), platforms=platforms)(abstract, features)


def write(found: Contents, output: str | Path) -> None:
    """Writes the directory `output`, which appears as a whole or not at all.

    Raises:
      UserError: there is something in `output` already, it can't be written, or flatbuffers is not installed.
    """
    flatbuffers_or_error()
    output = Path(os.path.abspath(Path(output).expanduser()))
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"--output={output} exists and is not an empty directory: give a new one")
    manifest = {**found.manifest, "platforms": list(PLATFORMS), "versions": versions()}
    files = {
        ARTEFACT: bytes(artefact(found).serialize()),
        PARAMS: packed(found.variables),
        PREPROCESSING: json.dumps(found.preprocessing).encode(),
        MANIFEST: json.dumps(manifest, indent=2).encode(),
    }
    files[SUMS] = "".join(f"{digest(data)}  {name}\n" for name, data in files.items()).encode()
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
