"""Pretrained image encoders from local files; nothing is downloaded, except by timm for a name that starts so.

`load_encoder` recognises a model by its `config.json`, or by its tensors where it is a file alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from clustering_jax.encoders import clip, dinov2, dinov3, lite0, pytorch, resnet, siglip
from clustering_jax.encoders.base import Encoder, directory_of
from clustering_jax.errors import UserError, nearest, reading
from clustering_jax.nn.vit.clip_config import read_json
from clustering_jax.weights.tensors import looks_like, open_tensors

__all__ = ["Encoder", "load_encoder"]

Load = Callable[[Path, Any], Encoder]
# By `model_type` of Hugging Face's config.json, and by `architecture` of timm's.
MODEL_TYPES: dict[str, Load] = {
    "clip": clip.load,
    "dinov2": dinov2.load,
    "dinov2_with_registers": dinov2.load,
    "dinov3_vit": dinov3.load,
    "resnet": resnet.load_hugging_face,
    "siglip": siglip.load,
    "siglip_vision_model": siglip.load,
    "siglip2": siglip.load,
    "siglip2_vision_model": siglip.load,
}
ARCHITECTURES: dict[str, Load] = {name: resnet.load_timm for name in ("resnet18", "resnet34", "resnet50")}
# By `weights.tensors.looks_like` of a file without a config.json.
FILES: dict[str, Load] = {
    "EfficientNet-Lite0": lambda path, dtype: lite0.load(path),
    "torchvision's ResNet": resnet.load_torchvision,
}
# By name: weights that an installed package holds.
NAMES: dict[str, Callable[[], Encoder]] = {"lite0": lite0.load_package}


def load_encoder(path_or_name: str | os.PathLike, *, dtype: Any = jnp.float32) -> Encoder:
    """A pretrained image encoder.

    Args:
      path_or_name: "lite0" (EfficientNet-Lite0 from the package that the extra "photos" installs), the directory of
        a model as Hugging Face's `save_pretrained`, timm or open_clip write it, or a file: the weights in such a
        directory, or torchvision's of a ResNet; or "timm:NAME" or "hf:DIR" for any other model, by PyTorch.
      dtype: of products and activations; parameters and features are float32. EfficientNet-Lite0 and
        models of PyTorch are always float32.

    Raises:
      UserError: a file is missing, damaged or of an architecture that is not known; the line says which.
    """
    if str(path_or_name) in NAMES:
        return NAMES[str(path_or_name)]()
    if str(path_or_name).partition(":")[0] in pytorch.PREFIXES and not Path(path_or_name).exists():
        return pytorch.load(str(path_or_name))
    path = Path(path_or_name).expanduser()
    if not path.exists():
        raise UserError(f"'{path}' does not exist: give a model's directory or file, or one of {', '.join(NAMES)}")
    directory = directory_of(path)
    if (directory / "open_clip_config.json").is_file():
        return clip.load(path, dtype)
    if (directory / "config.json").is_file():
        load = _by_config(directory / "config.json")
        with reading(directory / "config.json", "config of this model"):
            return load(path, dtype)
    if path.is_dir():
        raise UserError(f"{path} has no config.json: give a model's directory, or the file with a ResNet's weights")
    if (kind := looks_like(list(open_tensors(path).shapes))) not in FILES:
        raise UserError(f"{path} has no config.json beside it, and looks like {kind}: give the model's directory")
    return FILES[kind](path, dtype)


def _by_config(path: Path) -> Load:
    tree = read_json(path)
    kind = str(tree.get("model_type", tree.get("architecture")))
    known = {**MODEL_TYPES, **ARCHITECTURES}
    if kind not in known:
        raise UserError(f"{path} describes a model of type '{kind}', which is not known{nearest(kind, known)}")
    return known[kind]
