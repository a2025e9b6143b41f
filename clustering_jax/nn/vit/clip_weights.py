"""Loads published CLIP models from a local directory. Nothing is downloaded.

The name and the shape of each tensor are checked. Two layouts are supported: Hugging Face's (`config.json` and
`model.safetensors`, as in `openai/clip-vit-base-patch32`) and open_clip's (`open_clip_config.json` and
`open_clip_model.safetensors`). Both have `tokenizer.json` in the same directory.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from clustering_jax.errors import UserError, reading
from clustering_jax.nn.vit.clip import CLIP, ClipConfig
from clustering_jax.nn.vit.clip_config import read_json
from clustering_jax.nn.vit.clip_layouts import HUGGING_FACE, OPEN_CLIP, Layout, stored_shape, tensor_names, to_param
from clustering_jax.nn.vit.clip_text import load_tokenizer
from clustering_jax.typing import Array

_FLOATS = ("F64", "F32", "F16", "BF16")


class Clip(NamedTuple):
    """A loaded model.

    Args:
      name: name of its directory.
      checksum: checksum of `weights_checksum`.
      config: sizes of the model, and how images are resized and normalised.
      params: float32 parameters of `clip.CLIP`.
      image_features: ``(params, uint8 [n, image_size, image_size, 3]) -> float32 [n, embed_dim]``, a pure function; the
        features are not normalised.
      text_features: ``(params, ids [n, t]) -> float32 [n, embed_dim]``, a pure function; the features are not
        normalised.
      tokenize: ``(texts) -> int32 [n, context_length]``, on the host; None if the model was loaded without texts.
    """

    name: str
    checksum: str
    config: ClipConfig
    params: dict[str, Any]
    image_features: Callable[[Mapping, Array], Array]
    text_features: Callable[[Mapping, Array], Array]
    tokenize: Callable[[Sequence[str]], np.ndarray] | None


def load_clip(path: str | os.PathLike, *, dtype: Any = jnp.float32, texts: bool = True, remat: bool = False) -> Clip:
    """Loads a CLIP model from files.

    Args:
      path: directory of the model, or the file with the weights inside it.
      dtype: dtype of the products and activations. The parameters are float32, also from float16 or bfloat16 files.
      texts: whether the model will encode texts. If false, `tokenizer.json` is not needed.
      remat: rematerialisation for gradients, see `CLIP`.

    Raises:
      UserError: a file is missing, damaged or belongs to another architecture, or the config, the tensors and the
        tokenizer do not match.
    """
    layout, files = _locate(Path(path).expanduser())
    directory = files[0].parent
    with reading(directory / layout.config_file, "config of CLIP"):
        config = layout.read_config(directory / layout.config_file)
    with reading(directory / "tokenizer.json", "tokenizer of CLIP"):
        tokenize = load_tokenizer(directory, config) if texts else None
    params = _read_params(layout, files, config)
    model = CLIP(config, dtype, remat)
    image, text = (functools.partial(_apply, model, name) for name in ("image_features", "text_features"))
    return Clip(directory.resolve().name, sha256(files), config, params, image, text, tokenize)


def weights_checksum(path: str | os.PathLike) -> str:
    """SHA-256, in hexadecimal, of the files with the weights of the model at `path`, one after the other."""
    return sha256(_locate(Path(path).expanduser())[1])


def _apply(model: CLIP, method: str, params: Mapping, x: Array) -> Any:
    return model.apply({"params": params}, x, method=method)


def sha256(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for name in files:
        with name.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def _locate(path: Path) -> tuple[Layout, list[Path]]:
    """The layout of the model at `path`, and the files with its weights."""
    if path.is_file():
        is_open = any(name.startswith("visual.") for name in open_safetensors(path))
        return OPEN_CLIP if is_open else HUGGING_FACE, [path]
    if not path.is_dir():
        raise UserError(f"'{path}' does not exist: give the directory of a CLIP model")
    layouts = [layout for layout in (HUGGING_FACE, OPEN_CLIP) if (path / layout.config_file).is_file()]
    for layout in layouts:
        if files := weights_files(path / layout.weights_file):
            return layout, files
    if layouts:
        raise UserError(f"{path} has {layouts[0].config_file} but no {layouts[0].weights_file}: put the weights there")
    names = f"{HUGGING_FACE.config_file} nor {OPEN_CLIP.config_file}"
    raise UserError(f"{path} is not a CLIP model: it has neither {names}")


def weights_files(whole: Path) -> list[Path]:
    """The file with all weights, or the files that the index in the same directory lists."""
    index = whole.with_name(f"{whole.name}.index.json")
    if whole.is_file():
        return [whole]
    if not index.is_file():
        return []
    parts = read_json(index).get("weight_map")
    if not isinstance(parts, dict) or not parts:
        raise UserError(f"{index} is damaged: it has no weight_map")
    names = sorted(set(map(str, parts.values())))
    if outside := next((name for name in names if Path(name).name != name), None):
        raise UserError(f"{index} names {outside[:100]!a}, which lies in another directory: weights must be beside it")
    files = [index.parent / name for name in names]
    for file in files:
        if not file.is_file():
            raise UserError(f"{file} is missing: {index.name} lists it as a part of the weights")
    return files


def open_safetensors(file: Path) -> dict[str, Any]:
    """Opens the file without reading the tensors. Maps the name of each tensor to the open file."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise UserError(f'{file} needs the package safetensors: pip install "clustering_jax[clip]"') from error
    try:
        handle = safe_open(file, "numpy")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} is damaged, truncated or not a safetensors file ({error})") from error
    return dict.fromkeys(handle.keys(), handle)


def _read_params(layout: Layout, files: Sequence[Path], config: ClipConfig) -> dict[str, Any]:
    """Reads the parameters. All names and shapes are checked before the first tensor is read."""
    source = files[0] if len(files) == 1 else files[0].parent
    tensors = {name: handle for file in files for name, handle in open_safetensors(file).items()}
    shapes = {path: leaf.shape for path, leaf in flatten_dict(_abstract(config)).items()}
    names = {path: tensor_names(layout, path) for path in shapes}
    expected = {n: stored_shape(layout, p, shapes[p], config.patch_size) for p in shapes for n in names[p]}
    _check_names(source, expected.keys(), {n for n in tensors if not n.endswith(layout.unused)})
    for name, shape in expected.items():
        _check_tensor(source, name, tensors[name].get_slice(name), shape)
    return unflatten_dict(
        {p: jnp.array(to_param(layout, p, [_read(source, n, tensors[n]) for n in names[p]])) for p in shapes}
    )


def _abstract(config: ClipConfig) -> dict[str, Any]:
    images = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), np.uint8)
    ids = jax.ShapeDtypeStruct((1, config.context_length), np.int32)
    return jax.eval_shape(CLIP(config).init, jax.random.key(0), images, ids)["params"]


def _check_names(source: Path, expected: Set[str], stored: Set[str]) -> None:
    parts = (("lacks", sorted(expected - stored)), ("also has", sorted(stored - expected)))
    texts = [f"{verb} {len(names)} tensors ({ascii(names[0])[1:-1][:100]}, ...)" for verb, names in parts if names]
    if texts:
        raise UserError(f"{source} does not match the config in its directory: it {' and '.join(texts)}")


def _check_tensor(source: Path, name: str, stored: Any, shape: tuple[int, ...]) -> None:
    if tuple(stored.get_shape()) != shape:
        raise UserError(f"{source}: {name} is {stored.get_shape()}, but the config expects {list(shape)}")
    if stored.get_dtype() not in _FLOATS:
        raise UserError(f"{source}: {name} is of type {stored.get_dtype()}, only {', '.join(_FLOATS)} are supported")


def _read(source: Path, name: str, handle: Any) -> np.ndarray:
    values = handle.get_tensor(name).astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{source} is damaged: {name} is not finite")
    return values
