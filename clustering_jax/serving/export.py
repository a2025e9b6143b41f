"""Writes a trained model as a directory that can predict without the run and without the code of the methods."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from clustering_jax.errors import UserError
from clustering_jax.files import new_directory
from clustering_jax.inference.image_model import ImageModel, image_model_of
from clustering_jax.inference.predictor import Predictor
from clustering_jax.inference.results import versions
from clustering_jax.losses import normalize
from clustering_jax.method import Method
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


def of_run(workdir: str | Path, *, photos: bool = True) -> Contents:
    """Reads the model of a finished or unfinished run from its newest checkpoint.

    Args:
      workdir: directory of the run. If the run has several seeds, the seed that the run selected is read.
      photos: if the run embedded photos by a pretrained encoder, take the encoder in, so that the exported model takes
        photos. False takes embeddings.

    Returns:
      The contents to export.

    Raises:
      UserError: see `Predictor.restore`; or the encoder can't be read; or the run was corrected by hand.
    """
    run = Predictor.restore(workdir)
    if run.rule.outputs:
        raise UserError(f"{workdir} was corrected by hand, which an exported model can't follow: export the run before")
    manifest = {
        "format": FORMAT,
        "method": run.config["method"],
        "num_clusters": run.config["num_clusters"],
        "names": run.names,
        "config": run.config,
    }
    inputs, variables = preprocessing(run.shapes, run.scalings, run.config["data"]), jax.device_get(run.variables)
    if photos and (model := _encoder_of(run.config)):
        manifest["encoder"] = model.settings
        inputs |= {"shapes": {"image": list(model.shape)}, "fit": model.fit}
        variables = {"encoder": model.params, "head": variables}
    return Contents(manifest, inputs, variables)


def _encoder_of(config: Mapping[str, Any]) -> ImageModel | None:
    """The pretrained model that embedded the photos of a run; None if the run took no photos."""
    try:
        model = image_model_of(config)
        if model and not model.compiled:
            raise UserError(f"embed.encoder is '{config['embed']['encoder']}': a model of PyTorch can't be exported")
        return model
    except UserError as error:
        raise UserError(f"{error}; --input=embeddings exports the head without the encoder") from error


def _outputs(method: Method) -> Callable:
    """``(variables, features) -> ([n, k], [n, d])``; the compiler computes once what both outputs need."""
    return lambda variables, features: (method.predict(variables, features), method.embed(variables, features))


def _outputs_of_photos(method: Method, manifest: Mapping[str, Any]) -> Callable:
    """`_outputs` with the encoder before it, and rows of norm 1 as in training."""
    model = _encoder_of(manifest["config"])
    if model is None or model.settings != manifest["encoder"]:
        raise UserError(f"the encoder differs from the one of the export, {manifest['encoder']}: bring its files back")

    def outputs(variables: Any, features: dict[str, Any]) -> Any:
        rows = model.features(variables["encoder"], features["image"])
        return _outputs(method)(variables["head"], {"image": normalize(rows)})

    return outputs


def artefact(contents: Contents, platforms: tuple[str, ...] = PLATFORMS) -> jax.export.Exported:
    """Exports the prediction and the embedding of a model as a `jax.export` artefact.

    Args:
      contents: the model.
      platforms: platforms that the artefact can run on.

    Returns:
      The function ``(variables, features) -> ([n, k], [n, d])`` for any number of rows n, as `Outputs` names them.
    """
    # The number of steps matters only for the schedule of the optimiser, and nothing is trained here.
    method = from_config(contents.manifest["config"], {"train": 1})
    (n,) = jax.export.symbolic_shape("n")
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), contents.variables)
    features = Inputs.from_preprocessing(contents.preprocessing).signature(n)
    outputs = _outputs_of_photos(method, contents.manifest) if "encoder" in contents.manifest else _outputs(method)
    return jax.export.export(jax.jit(outputs), platforms=platforms)(abstract, features)


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
    with new_directory(output, "--output") as partial:
        for name, data in files.items():
            (partial / name).write_bytes(data)
