"""Reads and checks an exported model, and predicts with it. The run that the model came from is not needed."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from clustering_jax.errors import UserError
from clustering_jax.serving.inputs import Inputs

# Version of the layout of the directory. The JAX artefact inside has a version of its own.
FORMAT = 2
ARTEFACT, PARAMS, PREPROCESSING, MANIFEST, SUMS = (
    "predict.jax_export",
    "params.npz",
    "preprocessing.json",
    "model.json",
    "SHA256SUMS",
)


class Contents(NamedTuple):
    """The contents of the directory of a model, without the artefact.

    Attributes:
      manifest: content of model.json.
      preprocessing: content of preprocessing.json.
      variables: the tree of parameters in params.npz.
    """

    manifest: dict[str, Any]
    preprocessing: dict[str, Any]
    variables: dict[str, Any]


class Outputs(NamedTuple):
    """What a model computes from n rows.

    Attributes:
      probabilities: soft assignments, float [n, k].
      embeddings: the features that the method learnt or was given, float [n, d].
    """

    probabilities: np.ndarray
    embeddings: np.ndarray


def sha256(data: bytes) -> str:
    """The SHA-256 checksum of `data` in hexadecimal, as in the file SHA256SUMS."""
    return hashlib.sha256(data).hexdigest()


def to_npz(variables: Mapping[str, Any]) -> bytes:
    """Serialises a tree of arrays as a `.npz` file whose keys are the paths in the tree."""
    file = io.BytesIO()
    arrays: dict[str, Any] = {path: np.asarray(x) for path, x in flatten_dict(dict(variables), sep="/").items()}
    np.savez(file, **arrays)
    return file.getvalue()


def read(directory: str | Path) -> tuple[Contents, bytes]:
    """Reads an exported model and checks the checksum of every file.

    Args:
      directory: a directory that `clustering_jax.serving.export.write` wrote.

    Returns:
      The contents and the serialised artefact.

    Raises:
      UserError: the directory holds no exported model, a file is missing or damaged, or the layout has another version.
    """
    files = _read_checked(Path(directory).expanduser())
    manifest = json.loads(files[MANIFEST])
    if manifest["format"] != FORMAT:
        theirs, ours = f"has format {manifest['format']}", f"this clustering_jax reads format {FORMAT}"
        raise UserError(f"{directory} {theirs}, {ours}: export the model again, or install the other version")
    with np.load(io.BytesIO(files[PARAMS]), allow_pickle=False) as archive:
        variables = unflatten_dict(dict(archive), sep="/")
    return Contents(manifest, json.loads(files[PREPROCESSING]), variables), files[ARTEFACT]


def _read_checked(directory: Path) -> dict[str, bytes]:
    """The content of each file by name; UserError if a checksum is wrong."""
    if not (directory / SUMS).is_file():
        raise UserError(f"{directory} is no exported model: give a directory that clustering_jax.export wrote")
    lines = (directory / SUMS).read_text(errors="replace").splitlines()
    checksums = {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}
    files = {}
    for name in (ARTEFACT, PARAMS, PREPROCESSING, MANIFEST):
        try:
            files[name] = (directory / name).read_bytes()
        except OSError as error:
            raise UserError(f"{directory / name} can't be read ({error.strerror}): export the model again") from error
        if sha256(files[name]) != checksums.get(name):
            raise UserError(f"{directory / name} is damaged, its checksum is not in {SUMS}: export the model again")
    return files


@dataclass(frozen=True)
class Model:
    """An exported model that predicts new rows.

    Attributes:
      manifest: content of model.json.
      inputs: the inputs that the model takes.
      sizes: the batch sizes that are compiled, ascending. A batch is padded to the next larger size.
      name: name of the directory.
      digest: "sha256:" and the checksum of the file SHA256SUMS, which covers all other files.
    """

    manifest: dict[str, Any]
    inputs: Inputs
    sizes: tuple[int, ...]
    name: str
    digest: str
    _variables: Any
    _call: Any

    @classmethod
    def load(cls, directory: str | Path, *, max_batch: int = 64) -> Model:
        """Reads an exported model.

        Args:
          directory: a directory that `clustering_jax.serving.export.write` wrote.
          max_batch: largest number of rows that are computed together, at least 1.

        Returns:
          The model.

        Raises:
          UserError: see `read`; also if this version of JAX can't read the artefact, the artefact is for other devices,
            or flatbuffers is not installed.
        """
        contents, artefact = read(directory)
        flatbuffers_or_error()
        try:
            exported = jax.export.deserialize(bytearray(artefact))
        except Exception as error:  # ValueError for another version, other exceptions for a damaged artefact.
            reason, theirs = " ".join(str(error).split())[:200], contents.manifest["versions"]["jax"]
            raise UserError(
                f"{directory} was exported by JAX {theirs}, which JAX {jax.__version__} can't read ({reason}): "
                f"export it again with python -m clustering_jax.export --model={directory} --output=NEW"
            ) from error
        ours = jax.export.default_export_platform()
        if ours not in exported.platforms:
            raise UserError(f"{directory} is for {', '.join(exported.platforms)}, not {ours}: set JAX_PLATFORMS=cpu")
        sizes = [1]
        while sizes[-1] < max_batch:
            sizes.append(min(4 * sizes[-1], max_batch))
        inputs = Inputs.from_preprocessing(contents.preprocessing)
        directory = Path(directory).expanduser().resolve()
        digest = f"sha256:{sha256((directory / SUMS).read_bytes())}"
        variables, call = jax.device_put(contents.variables), jax.jit(exported.call)
        return cls(contents.manifest, inputs, tuple(sizes), directory.name, digest, variables, call)

    @property
    def names(self) -> list[list[str]]:
        """The words that name each cluster; empty if the method names no clusters."""
        return self.manifest["names"]

    def compile(self) -> None:
        """Compiles every batch size now, so that the first requests need not wait for it."""
        for size in self.sizes:
            self.run({name: np.zeros(x.shape, x.dtype) for name, x in self.inputs.signature(size).items()})

    def predict_proba(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Predicts the clusters of a user's arrays.

        Args:
          arrays: arrays by name, see `Inputs.features`.

        Returns:
          Soft assignments [n, k].
        """
        return self.run(self.inputs.features(arrays, "the input")).probabilities

    def embed(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Computes the embeddings [n, d] of a user's arrays, which are as in `predict_proba`."""
        return self.run(self.inputs.features(arrays, "the input")).embeddings

    def run(self, features: Mapping[str, np.ndarray]) -> Outputs:
        """Computes the outputs for preprocessed features.

        Args:
          features: arrays as in `Inputs.signature`, with at least one row.

        Returns:
          The outputs for all rows.
        """
        n, most = len(next(iter(features.values()))), self.sizes[-1]
        chunks = [{k: v[start : start + most] for k, v in features.items()} for start in range(0, n, most)]
        outputs = [self._run_padded(chunk, min(most, n - i * most)) for i, chunk in enumerate(chunks)]
        return Outputs(*map(np.concatenate, zip(*outputs, strict=True)))

    def _run_padded(self, features: dict[str, np.ndarray], n: int) -> Outputs:
        """Pads `n` rows to the next compiled size by repeating the first row."""
        index = np.zeros(min(size for size in self.sizes if size >= n), int)
        index[:n] = np.arange(n)
        outputs = self._call(self._variables, {k: v[index] for k, v in features.items()})
        return Outputs(*(np.asarray(output)[:n] for output in outputs))


def flatbuffers_or_error() -> None:
    """Raises UserError if flatbuffers, which reads and writes artefacts, is not installed."""
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise UserError('exported models need flatbuffers: pip install "clustering_jax[export]"') from error
