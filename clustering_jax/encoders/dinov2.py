"""DINOv2, without or with registers, from Hugging Face's directory."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from clustering_jax.data.images.preprocessing import Preprocessing
from clustering_jax.encoders.base import Encoder, directory_of, read_preprocessing, vit_section
from clustering_jax.errors import UserError
from clustering_jax.nn.vit.clip_config import demand, read_json
from clustering_jax.nn.vit.dinov2 import Dinov2Config, features
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
    "mlp_ratio": 4.0,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "image_size": 224,
    "patch_size": 14,
    "num_register_tokens": 4,
}
_PREPROCESSING = Preprocessing(resize=256)


def load(path: Path, dtype: Any) -> Encoder:
    """The encoder in the directory `path`, or in the file `path` of such a directory.

    Raises:
      UserError: a file is missing, damaged or of another architecture.
    """
    directory = directory_of(path)
    config = read_config(directory / "config.json")
    preprocessing = read_preprocessing(directory, _PREPROCESSING, config.patch_size)
    tensors = open_tensors(path)
    params = read_tree(
        tensors,
        layout(config),
        "the DINOv2 of its config.json",
        prefixes=("dinov2.", "dinov2_with_registers."),
        unused=("embeddings.mask_token", "classifier."),
    )
    apply = functools.partial(features, config, mean=preprocessing.mean, std=preprocessing.std, dtype=dtype)
    return Encoder(directory.resolve().name, tensors.checksum, params, apply, preprocessing)


def read_config(path: Path) -> Dinov2Config:
    """The architecture that Hugging Face's `config.json` describes.

    Raises:
      UserError: the file asks for what the network here does not do.
    """
    tree = read_json(path)
    registers = tree.get("model_type") == "dinov2_with_registers"
    section = vit_section(path, tree, {**_DEFAULTS, "patch_size": 16} if registers else _DEFAULTS)
    demand(path, tree, {"qkv_bias": (True,)})
    width, side = section["hidden_size"], section["image_size"] // section["patch_size"]
    hidden, gated = int(width * section["mlp_ratio"]), bool(tree.get("use_swiglu_ffn"))
    if not side:
        raise UserError(f"{path}: image_size {section['image_size']} is below the patch's {section['patch_size']}")
    return Dinov2Config(
        width,
        section["num_hidden_layers"],
        section["num_attention_heads"],
        (int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden,
        section["patch_size"],
        (side, side),
        section["num_register_tokens"] if registers else 0,
        gated,
        section["hidden_act"],
        section["layer_norm_eps"],
        "antialiased bicubic" if registers else "bicubic",
    )


def layout(config: Dinov2Config) -> dict[str, Any]:
    """Hugging Face's tensors for the parameters of `nn.vit.dinov2.features`."""
    width, (rows, cols) = config.width, config.grid
    positions, shape = ("embeddings.position_embeddings",), (1, 1 + rows * cols, width)
    tree = {
        "class_token": Stored(("embeddings.cls_token",), (1, 1, width), lambda x: x[0]),
        "positions": {
            "class": Stored(positions, shape, lambda x: x[0, :1]),
            "grid": Stored(positions, shape, lambda x: x[0, 1:].reshape(rows, cols, width)),
        },
        "patches": patch_embedding("embeddings.patch_embeddings.projection", config.patch_size, width),
        "norm": norm("layernorm", width),
        **{f"block_{i}": _block(config, f"encoder.layer.{i}.") for i in range(config.layers)},
    }
    if config.registers:
        shape = (1, config.registers, width)
        tree["registers"] = Stored(("embeddings.register_tokens",), shape, lambda x: x[0])
    return tree


def _block(config: Dinov2Config, start: str) -> dict[str, Any]:
    width = config.width
    qkv = tuple(f"{start}attention.attention.{name}" for name in ("query", "key", "value"))
    return {
        "norm_1": norm(f"{start}norm1", width),
        "qkv": joined_linear(qkv, width, width, (True,) * 3),
        "out": linear(f"{start}attention.output.dense", width, width),
        "scale_1": Stored((f"{start}layer_scale1.lambda1",), (width,)),
        "norm_2": norm(f"{start}norm2", width),
        **_mlp(config, f"{start}mlp."),
        "scale_2": Stored((f"{start}layer_scale2.lambda1",), (width,)),
    }


def _mlp(config: Dinov2Config, start: str) -> dict[str, Any]:
    width, hidden = config.width, config.hidden
    if not config.gated:
        return {"up": linear(f"{start}fc1", width, hidden), "down": linear(f"{start}fc2", hidden, width)}
    return {
        "gate": _half(f"{start}weights_in", width, hidden, 0),
        "up": _half(f"{start}weights_in", width, hidden, 1),
        "down": linear(f"{start}weights_out", hidden, width),
    }


def _half(name: str, inputs: int, outputs: int, half: int) -> dict[str, Stored]:
    """The first or the second half of a linear layer's outputs."""
    rows = slice(half * outputs, (half + 1) * outputs)

    def take(x: np.ndarray) -> np.ndarray:
        return x[rows].T

    return {
        "kernel": Stored((f"{name}.weight",), (2 * outputs, inputs), take),
        "bias": Stored((f"{name}.bias",), (2 * outputs,), take),
    }
