"""What every pretrained encoder is, and what reading one from files needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from clustering_jax.data.images.preprocessing import Preprocessing, from_json
from clustering_jax.errors import UserError, nearest
from clustering_jax.nn.vit.blocks import ACTIVATIONS
from clustering_jax.nn.vit.clip_config import demand, read_json, typed
from clustering_jax.typing import Array


class Encoder(NamedTuple):
    """A pretrained image encoder.

    Args:
      name: of its directory or file.
      checksum: sha256 of its weights, in hexadecimal.
      params: its parameters, a tree of float32 arrays.
      features: ``(params, uint8 [n, h, w, 3]) -> float32 [n, d]``, not normalised; pure, of JAX, if `compiled`.
      preprocessing: how images become `features`'s input, see `data.images.preprocessing.preprocess`.
      compiled: whether JAX can compile `features`. Otherwise it takes and gives NumPy arrays.
    """

    name: str
    checksum: str
    params: Mapping[str, Any]
    features: Callable[[Mapping[str, Any], Array], Array]
    preprocessing: Preprocessing
    compiled: bool = True


def directory_of(path: Path) -> Path:
    """The directory `path`, or the one of the file `path`."""
    return path if path.is_dir() else path.parent


def vit_section(path: Path, tree: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A vision transformer's part of `config.json` over Hugging Face's `defaults`, checked.

    Raises:
      UserError: a value has another type, or asks for what the networks here do not do.
    """
    section = typed(path, tree, {"num_channels": 3, **defaults})
    demand(path, section, {"num_channels": (3,)})
    if section["hidden_act"] not in ACTIVATIONS:
        raise UserError(
            f"{path}: unknown activation '{section['hidden_act']}'{nearest(section['hidden_act'], ACTIVATIONS)}"
        )
    width, heads = section["hidden_size"], section["num_attention_heads"]
    if width % heads:
        raise UserError(f"{path}: a width of {width} can't be split into {heads} heads")
    return section


def read_preprocessing(directory: Path, default: Preprocessing, patch_size: int = 1) -> Preprocessing:
    """What the image processor's file in `directory` says, or `default` where there is none.

    Raises:
      UserError: the file asks for another step, or for a size that is no multiple of the patch.
    """
    path, settings = directory / "preprocessor_config.json", default
    if path.is_file():
        settings = from_json(path, read_json(path), default)
    elif (path := directory / "processor_config.json").is_file():
        settings = from_json(path, read_json(path).get("image_processor") or {}, default)
    if any(side % patch_size for side in settings.size):
        height, width = settings.size
        raise UserError(f"{path}: images of {height} x {width} pixels can't be cut into patches of {patch_size}")
    return settings
