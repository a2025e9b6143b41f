"""A model that `clustering_jax.export` wrote: read, checked and ready to predict, without the run it came from."""

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

# Of the layout of the directory; artefacts have a version of their own, JAX's.
FORMAT = 1
ARTEFACT, PARAMS, PREPROCESSING, MANIFEST, SUMS = (
    "predict.jax_export",
    "params.npz",
    "preprocessing.json",
    "model.json",
    "SHA256SUMS",
)


class Contents(NamedTuple):
    """What a model's directory holds besides the artefact: model.json, preprocessing.json and params.npz."""

    manifest: dict[str, Any]
    preprocessing: dict[str, Any]
    variables: dict[str, Any]


def digest(data: bytes) -> str:
    """As SHA256SUMS has it."""
    return hashlib.sha256(data).hexdigest()


def packed(variables: Mapping[str, Any]) -> bytes:
    """The tree as a `.npz`, paths as keys."""
    file = io.BytesIO()
    np.savez(file, **{path: np.asarray(x) for path, x in flatten_dict(dict(variables), sep="/").items()})
    return file.getvalue()


def contents(directory: str | Path) -> tuple[Contents, bytes]:
    """What `directory` holds, and its artefact, after a look at every checksum.

    Raises:
      UserError: it is no such directory, a file is missing or damaged, or the layout is another version's.
    """
    files = _checked(Path(directory).expanduser())
    manifest = json.loads(files[MANIFEST])
    if manifest["format"] != FORMAT:
        theirs, ours = f"of format {manifest['format']}", f"this clustering_jax reads {FORMAT}"
        raise UserError(f"{directory} is {theirs}, {ours}: export it with this version, or install that one")
    with np.load(io.BytesIO(files[PARAMS]), allow_pickle=False) as archive:
        variables = unflatten_dict(dict(archive), sep="/")
    return Contents(manifest, json.loads(files[PREPROCESSING]), variables), files[ARTEFACT]


def _checked(directory: Path) -> dict[str, bytes]:
    """The files by name."""
    if not (directory / SUMS).is_file():
        raise UserError(f"{directory} is no exported model: give what clustering_jax.serving.export wrote")
    lines = (directory / SUMS).read_text(errors="replace").splitlines()
    wanted = {name: found for found, _, name in (line.partition("  ") for line in lines)}
    files = {}
    for name in (ARTEFACT, PARAMS, PREPROCESSING, MANIFEST):
        try:
            files[name] = (directory / name).read_bytes()
        except OSError as error:
            raise UserError(f"{directory / name} can't be read ({error.strerror}): export the model again") from error
        if digest(files[name]) != wanted.get(name):
            raise UserError(f"{directory / name} is damaged, it is not what {SUMS} says: export the model again")
    return files


@dataclass(frozen=True)
class Model:
    """Predicts new rows.

    manifest: content of model.json. sizes: rows that programs are compiled for; batches are padded to the next one.
    """

    manifest: dict[str, Any]
    inputs: Inputs
    sizes: tuple[int, ...]
    _variables: Any
    _call: Any

    @classmethod
    def load(cls, directory: str | Path, *, max_batch: int = 64) -> Model:
        """Reads `directory`; max_batch: rows at a time, at least 1.

        Raises:
          UserError: as `contents`; the artefact is of a JAX that this one can't read, or for other devices;
            flatbuffers is not installed.
        """
        found, artefact = contents(directory)
        flatbuffers_or_error()
        try:
            exported = jax.export.deserialize(bytearray(artefact))
        except Exception as error:  # ValueError for versions, anything else for what is inside
            reason, theirs = " ".join(str(error).split())[:200], found.manifest["versions"]["jax"]
            raise UserError(
                f"{directory} was exported by JAX {theirs}, which JAX {jax.__version__} can't read ({reason}): "
                f"python -m clustering_jax.export --model={directory} --output=NEW makes it anew of its parameters"
            ) from error
        ours = jax.export.default_export_platform()
        if ours not in exported.platforms:
            raise UserError(f"{directory} is for {', '.join(exported.platforms)}, not {ours}: set JAX_PLATFORMS=cpu")
        sizes = [1]
        while sizes[-1] < max_batch:
            sizes.append(min(4 * sizes[-1], max_batch))
        inputs = Inputs.of(found.preprocessing)
        return cls(found.manifest, inputs, tuple(sizes), jax.device_put(found.variables), jax.jit(exported.call))

    @property
    def names(self) -> list[list[str]]:
        """Words for each cluster, of methods that have them."""
        return self.manifest["names"]

    def compile(self) -> None:
        """Compiles for every size now, and not when the first batch of a size comes."""
        for size in self.sizes:
            self.run({name: np.zeros(x.shape, x.dtype) for name, x in self.inputs.signature(size).items()})

    def predict_proba(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Soft assignments [n, k] of arrays as `Inputs.features` takes them."""
        return self.run(self.inputs.features(arrays, "the input"))

    def run(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Soft assignments [n, k] of features as `Inputs.signature` has them, n above 0."""
        n, most = len(next(iter(features.values()))), self.sizes[-1]
        chunks = [{k: v[start : start + most] for k, v in features.items()} for start in range(0, n, most)]
        return np.concatenate([self._padded(chunk, min(most, n - i * most)) for i, chunk in enumerate(chunks)])

    def _padded(self, features: dict[str, np.ndarray], n: int) -> np.ndarray:
        index = np.zeros(min(size for size in self.sizes if size >= n), int)
        index[:n] = np.arange(n)
        return np.asarray(self._call(self._variables, {k: v[index] for k, v in features.items()}))[:n]


def flatbuffers_or_error() -> None:
    """Raises UserError where the library is not installed that artefacts are written and read with."""
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise UserError('exported models need flatbuffers: pip install "clustering_jax[export]"') from error
