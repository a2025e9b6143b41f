"""DINOv3's vision transformers from Hugging Face's directory."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from clustering_jax.data.images.preprocessing import Preprocessing
from clustering_jax.encoders.base import Encoder, directory_of, read_preprocessing, vit_section
from clustering_jax.errors import UserError
from clustering_jax.nn.vit.clip_config import read_json
from clustering_jax.nn.vit.dinov3 import Dinov3Config, features
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
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "intermediate_size": 1536,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "patch_size": 16,
    "rope_theta": 100.0,
}
_BIASES = {"query_bias": True, "key_bias": False, "value_bias": True, "proj_bias": True, "mlp_bias": True}
_PREPROCESSING = Preprocessing(interpolation="bilinear")


def load(path: Path, dtype: Any) -> Encoder:
    """The encoder in the directory `path`, or in the file `path` of such a directory.

    Raises:
      UserError: a file is missing, damaged or of another architecture.
    """
    directory = directory_of(path)
    tree = read_json(directory / "config.json")
    config = read_config(directory / "config.json", tree)
    preprocessing = read_preprocessing(directory, _PREPROCESSING, config.patch_size)
    tensors = open_tensors(path)
    params = read_tree(
        tensors,
        layout(config, {name: bool(tree.get(name, default)) for name, default in _BIASES.items()}),
        "the DINOv3 of its config.json",
        prefixes=("model.",),
        unused=("embeddings.mask_token",),
    )
    apply = functools.partial(features, config, mean=preprocessing.mean, std=preprocessing.std, dtype=dtype)
    return Encoder(directory.resolve().name, tensors.checksum, params, apply, preprocessing)


def read_config(path: Path, tree: dict[str, Any]) -> Dinov3Config:
    """The architecture that `tree`, the content of Hugging Face's `config.json`, describes.

    Raises:
      UserError: it asks for what the network here does not do.
    """
    section, registers = vit_section(path, tree, _DEFAULTS), tree.get("num_register_tokens", 0)
    if not isinstance(registers, int) or registers < 0:
        raise UserError(f"{path}: num_register_tokens is {registers!r}, a number is wanted")
    width, heads = section["hidden_size"], section["num_attention_heads"]
    if width // heads % 4:
        raise UserError(f"{path}: heads of {width // heads} channels can't be rotated, only of multiples of 4")
    return Dinov3Config(
        width,
        section["num_hidden_layers"],
        heads,
        section["intermediate_size"],
        section["patch_size"],
        registers,
        bool(tree.get("use_gated_mlp")),
        section["hidden_act"],
        section["layer_norm_eps"],
        section["rope_theta"],
    )


def layout(config: Dinov3Config, biases: dict[str, bool]) -> dict[str, Any]:
    """Hugging Face's tensors for the parameters of `nn.vit.dinov3.features`."""
    width = config.width
    tree = {
        "class_token": Stored(("embeddings.cls_token",), (1, 1, width), lambda x: x[0]),
        "patches": patch_embedding("embeddings.patch_embeddings", config.patch_size, width),
        "norm": norm("norm", width),
        **{f"block_{i}": _block(config, f"layer.{i}.", biases) for i in range(config.layers)},
    }
    if config.registers:
        shape = (1, config.registers, width)
        tree["registers"] = Stored(("embeddings.register_tokens",), shape, lambda x: x[0])
    return tree


def _block(config: Dinov3Config, start: str, biases: dict[str, bool]) -> dict[str, Any]:
    width, hidden, mlp_bias = config.width, config.hidden, biases["mlp_bias"]
    qkv = tuple(f"{start}attention.{name}_proj" for name in "qkv")
    block = {
        "norm_1": norm(f"{start}norm1", width),
        "qkv": joined_linear(qkv, width, width, [biases[f"{name}_bias"] for name in ("query", "key", "value")]),
        "out": linear(f"{start}attention.o_proj", width, width, bias=biases["proj_bias"]),
        "scale_1": Stored((f"{start}layer_scale1.lambda1",), (width,)),
        "norm_2": norm(f"{start}norm2", width),
        "up": linear(f"{start}mlp.up_proj", width, hidden, bias=mlp_bias),
        "down": linear(f"{start}mlp.down_proj", hidden, width, bias=mlp_bias),
        "scale_2": Stored((f"{start}layer_scale2.lambda1",), (width,)),
    }
    if config.gated:
        block["gate"] = linear(f"{start}mlp.gate_proj", width, hidden, bias=mlp_bias)
    return block
