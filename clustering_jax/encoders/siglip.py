"""The image towers of SigLIP and SigLIP 2 from Hugging Face's directory.

The fixed-size models of SigLIP 2 have SigLIP's files. Those of any aspect ratio ("NaFlex", model type `siglip2`) are
read too, but every image becomes a square of their number of patches.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

from clustering_jax.data.images.preprocessing import Preprocessing
from clustering_jax.encoders.base import Encoder, directory_of, read_preprocessing, vit_section
from clustering_jax.errors import UserError
from clustering_jax.nn.vit.clip_config import demand, read_json
from clustering_jax.nn.vit.siglip import SiglipConfig, features
from clustering_jax.weights.tensors import (
    Stored,
    joined_linear,
    linear,
    norm,
    open_tensors,
    patch_embedding,
    read_tree,
)

# What the files leave out where it is so.
_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "image_size": 224,
    "patch_size": 16,
    "num_patches": 256,
}
_HALF = (0.5, 0.5, 0.5)


def load(path: Path, dtype: Any) -> Encoder:
    """The encoder in the directory `path`, or in the file `path` of such a directory.

    Raises:
      UserError: a file is missing, damaged or of another architecture.
    """
    directory = directory_of(path)
    config, flexible = read_config(directory / "config.json")
    side = config.grid[0] * config.patch_size
    default = Preprocessing((side, side), 0, "bilinear" if flexible else "bicubic", _HALF, _HALF)
    preprocessing = read_preprocessing(directory, default, config.patch_size)
    tensors = open_tensors(path)
    params = read_tree(
        tensors,
        layout(config, flexible),
        "the SigLIP of its config.json",
        prefixes=("vision_model.",),
        unused=("text_model.", "logit_scale", "logit_bias"),
    )
    apply = functools.partial(features, config, mean=preprocessing.mean, std=preprocessing.std, dtype=dtype)
    return Encoder(directory.resolve().name, tensors.checksum, params, apply, preprocessing)


def read_config(path: Path) -> tuple[SiglipConfig, bool]:
    """The architecture that Hugging Face's `config.json` describes, and whether it is of any aspect ratio.

    Raises:
      UserError: the file asks for what the network here does not do.
    """
    tree = read_json(path)
    flexible = str(tree.get("model_type")).startswith("siglip2")
    tree = tree if str(tree.get("model_type")).endswith("vision_model") else tree.get("vision_config") or {}
    section = vit_section(path, tree, _DEFAULTS)
    demand(path, section, {"vision_use_head": (True,)})
    side = math.isqrt(section["num_patches"]) if flexible else section["image_size"] // section["patch_size"]
    if not side or (flexible and side**2 != section["num_patches"]):
        raise UserError(f"{path}: the patches of an image make no square")
    config = SiglipConfig(
        section["hidden_size"],
        section["num_hidden_layers"],
        section["num_attention_heads"],
        section["intermediate_size"],
        section["patch_size"],
        (side, side),
        section["hidden_act"],
        section["layer_norm_eps"],
        "antialiased bilinear" if flexible else "bicubic",
    )
    return config, flexible


def layout(config: SiglipConfig, flexible: bool) -> dict[str, Any]:
    """Hugging Face's tensors for the parameters of `nn.vit.siglip.features`."""
    width, (rows, cols), size = config.width, config.grid, config.patch_size
    positions = ("embeddings.position_embedding.weight",)
    patches = patch_embedding("embeddings.patch_embedding", size, width)
    if flexible:
        patches = linear("embeddings.patch_embedding", 3 * size**2, width)
    return {
        "patches": patches,
        "positions": Stored(positions, (rows * cols, width), lambda x: x.reshape(rows, cols, width)),
        **{f"block_{i}": _block(config, f"encoder.layers.{i}.") for i in range(config.layers)},
        "norm": norm("post_layernorm", width),
        "pool": _pool(config),
    }


def _block(config: SiglipConfig, start: str) -> dict[str, Any]:
    width = config.width
    qkv = tuple(f"{start}self_attn.{name}_proj" for name in "qkv")
    return {
        "norm_1": norm(f"{start}layer_norm1", width),
        "qkv": joined_linear(qkv, width, width, (True,) * 3),
        "out": linear(f"{start}self_attn.out_proj", width, width),
        "norm_2": norm(f"{start}layer_norm2", width),
        **_mlp(config, f"{start}mlp."),
    }


def _mlp(config: SiglipConfig, start: str) -> dict[str, Any]:
    up = linear(f"{start}fc1", config.width, config.hidden)
    return {"up": up, "down": linear(f"{start}fc2", config.hidden, config.width)}


def _pool(config: SiglipConfig) -> dict[str, Any]:
    width, start = config.width, "head.attention.in_proj_"
    return {
        "probe": Stored(("head.probe",), (1, 1, width), lambda x: x[0]),
        "query": {
            "kernel": Stored((f"{start}weight",), (3 * width, width), lambda x: x[:width].T),
            "bias": Stored((f"{start}bias",), (3 * width,), lambda x: x[:width]),
        },
        "keys_values": {
            "kernel": Stored((f"{start}weight",), (3 * width, width), lambda x: x[width:].T),
            "bias": Stored((f"{start}bias",), (3 * width,), lambda x: x[width:]),
        },
        "out": linear("head.attention.out_proj", width, width),
        "norm": norm("head.layernorm", width),
        **_mlp(config, "head.mlp."),
    }
