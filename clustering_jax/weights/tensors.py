"""Parameter trees from the tensors of published files, checked name by name and shape by shape.

The files are safetensors (whole, or in parts that an index lists) or PyTorch's own (see `torch_file`). A layout says
which tensors make up each parameter; everything is checked before the first tensor becomes a parameter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from clustering_jax.errors import UserError
from clustering_jax.nn.vit.clip_weights import open_safetensors, sha256, weights_files
from clustering_jax.weights.named import state_dict

# In this order; the names that transformers, timm and open_clip save under.
FILE_NAMES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")
_FLOATS = ("F64", "F32", "F16", "BF16")
# An architecture, and what the names of its tensors have in common; the first that matches counts.
_ARCHITECTURES = {
    "EfficientNet-Lite0": r"^_blocks\.\d+\._depthwise_conv\.",
    "open_clip's CLIP": r"^visual\.transformer\.resblocks\.",
    "CLIP": r"\bpre_layrnorm\.",
    "SigLIP": r"\bhead\.probe$",
    "DINOv2 with registers": r"^(dinov2_with_registers\.)?embeddings\.register_tokens$(?s:.*)attention\.attention\.",
    "DINOv3": r"\bembeddings\.register_tokens$",
    "DINOv2": r"\blayer_scale1\.lambda1$",
    "a supervised ViT": r"\bvit\.encoder\.layer\.|^blocks\.\d+\.attn\.qkv\.",
    "torchvision's ResNet": r"^layer1\.0\.conv1\.weight$",
    "Hugging Face's ResNet": r"\bencoder\.stages\.0\.layers\.0\.",
}


class Stored(NamedTuple):
    """How files hold one parameter.

    Args:
      names: tensors that are concatenated along their first axis; "" stands for zeros.
      shape: of each tensor.
      convert: from the concatenated tensors to the parameter.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    convert: Callable[[np.ndarray], np.ndarray] = np.asarray


class Tensors(NamedTuple):
    """The tensors of one model.

    Args:
      path: for messages: the file, or the directory of several files.
      checksum: sha256 of the files, one after the other, in hexadecimal.
      shapes: of each tensor, by name.
      read: the tensor of a name as float32.
    """

    path: Path
    checksum: str
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]


def open_tensors(path: str | os.PathLike) -> Tensors:
    """The tensors of a file, or of the file with a usual name in a directory, without the counters of batches.

    Raises:
      UserError: there is no such file, or it is damaged.
    """
    files = _files(Path(path).expanduser())
    where = files[0] if len(files) == 1 else files[0].parent
    if files[0].suffix != ".safetensors":
        state = state_dict(files[0])
        shapes = {name: value.shape for name, value in state.items()}
        return Tensors(where, sha256(files), shapes, lambda name: _finite(where, name, state[name]))
    handles = {name: handle for file in files for name, handle in open_safetensors(file).items()}
    handles = {name: handle for name, handle in handles.items() if not name.endswith("num_batches_tracked")}
    slices = {name: handle.get_slice(name) for name, handle in handles.items()}

    def read(name: str) -> np.ndarray:
        if (kind := slices[name].get_dtype()) not in _FLOATS:
            raise UserError(f"{where}: {name} is of type {kind}, only {', '.join(_FLOATS)} are supported")
        return _finite(where, name, handles[name].get_tensor(name))

    return Tensors(where, sha256(files), {name: tuple(part.get_shape()) for name, part in slices.items()}, read)


def read_tree(
    tensors: Tensors,
    layout: Mapping[str, Any],
    what: str,
    *,
    prefixes: Sequence[str] = (),
    unused: Sequence[str] = (),
) -> dict[str, Any]:
    """The parameters that `layout` describes.

    Args:
      tensors: see `open_tensors`.
      layout: a tree of `Stored`.
      what: the architecture, for messages.
      prefixes: beginnings that some files put before the layout's names; each is dropped where it stands.
      unused: beginnings of the names (after the prefixes) of tensors that the features do not need.

    Raises:
      UserError: a tensor is missing, left over, of another shape or not finite. The line names the missing tensors
        and the architecture that the file looks like.
    """
    names = {_without(name, prefixes): name for name in tensors.shapes}
    leaves = flatten_dict(layout)
    shapes = {name: leaf.shape for leaf in leaves.values() for name in leaf.names if name}
    _check_names(tensors, what, shapes, [n for n in names if not n.startswith(tuple(unused))])
    for name, shape in shapes.items():
        if tensors.shapes[names[name]] != shape:
            given = list(tensors.shapes[names[name]])
            raise UserError(f"{tensors.path}: {names[name]} is {given}, {what} has {list(shape)} there")

    def parameter(leaf: Stored) -> Any:
        parts = [tensors.read(names[name]) if name else np.zeros(leaf.shape, np.float32) for name in leaf.names]
        return jnp.array(leaf.convert(np.concatenate(parts) if len(parts) > 1 else parts[0]))

    return unflatten_dict({path: parameter(leaf) for path, leaf in leaves.items()})


def looks_like(names: Sequence[str]) -> str:
    """The known architecture that has tensors of these names, or "no known architecture"."""
    for architecture, pattern in _ARCHITECTURES.items():
        if re.search(pattern, "\n".join(sorted(names)), re.MULTILINE):
            return architecture
    return "no known architecture"


def linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> dict[str, Stored]:
    """A linear layer, kernel [in, out]."""
    return joined_linear((name,), inputs, outputs, (bias,))


def joined_linear(names: Sequence[str], inputs: int, outputs: int, biases: Sequence[bool]) -> dict[str, Stored]:
    """Linear layers of the same input as one, kernel [in, layers * out]; a missing bias among others is zero."""
    kernel = Stored(tuple(f"{name}.weight" for name in names), (outputs, inputs), np.transpose)
    if not any(biases):
        return {"kernel": kernel}
    bias = tuple(f"{name}.bias" if has else "" for name, has in zip(names, biases, strict=True))
    return {"kernel": kernel, "bias": Stored(bias, (outputs,))}


def norm(name: str, width: int) -> dict[str, Stored]:
    """Scale and bias of a layer norm."""
    return {"scale": Stored((f"{name}.weight",), (width,)), "bias": Stored((f"{name}.bias",), (width,))}


def patch_embedding(name: str, patch_size: int, width: int) -> dict[str, Stored]:
    """A convolution over patches as a linear layer, kernel [patch_size * patch_size * 3, width]."""
    kernel = Stored((f"{name}.weight",), (width, 3, patch_size, patch_size), _flat_patches)
    return {"kernel": kernel, "bias": Stored((f"{name}.bias",), (width,))}


def _flat_patches(kernel: np.ndarray) -> np.ndarray:
    return kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"'{path}' does not exist: give the directory or the file of a model")
    for name in FILE_NAMES:
        if files := weights_files(path / name):
            return files
    raise UserError(f"{path} has no weights: put one of {', '.join(FILE_NAMES)} there")


def _without(name: str, prefixes: Sequence[str]) -> str:
    for prefix in prefixes:
        name = name.removeprefix(prefix)
    return name


def _check_names(tensors: Tensors, what: str, wanted: Mapping, given: Sequence[str]) -> None:
    parts = {"lacks": sorted(wanted.keys() - set(given)), "also has": sorted(set(given) - wanted.keys())}
    texts = [f"{verb} {len(names)} tensors ({_first(names)})" for verb, names in parts.items() if names]
    if texts:
        kind = looks_like(list(tensors.shapes))
        raise UserError(f"{tensors.path} is not {what}: it {' and '.join(texts)}; it looks like {kind}")


def _first(names: Sequence[str]) -> str:
    return ", ".join(ascii(name)[1:-1][:100] for name in names[:3]) + (", ..." if len(names) > 3 else "")


def _finite(where: Path, name: str, values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{where} is damaged: {name} is not finite")
    return values
