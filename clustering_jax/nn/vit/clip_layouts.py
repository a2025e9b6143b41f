"""Names and shapes of the parameters of `clip.CLIP` in the published files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clustering_jax.nn.vit.clip import ClipConfig
from clustering_jax.nn.vit.clip_config import hf_config, open_clip_config

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


class Layout(NamedTuple):
    """Names of the files and tensors of one publisher.

    A name that ends in "." or "_" is a prefix, to which "weight" or "bias" is added.

    Args:
      config_file: name of the config file.
      weights_file: name of the file with the weights.
      read_config: reads the config file.
      modules: names of the tensors by tower and module; for "transformer", the prefix before the number of a block.
      block: names of the tensors by module of a block. Several tensors are concatenated to one parameter.
      as_is: modules whose kernels are stored as [in, out] instead of [out, in].
      unused: suffixes of the names of tensors that the features do not need.
    """

    config_file: str
    weights_file: str
    read_config: Callable[[Path], ClipConfig]
    modules: Mapping[tuple[str, str], str]
    block: Mapping[str, tuple[str, ...]]
    as_is: tuple[str, ...]
    unused: tuple[str, ...]


HUGGING_FACE = Layout(
    "config.json",
    "model.safetensors",
    hf_config,
    {
        ("vision", "class_embedding"): "vision_model.embeddings.class_embedding",
        ("vision", "patch_embedding"): "vision_model.embeddings.patch_embedding.",
        ("vision", "position_embedding"): "vision_model.embeddings.position_embedding.weight",
        ("vision", "norm_pre"): "vision_model.pre_layrnorm.",
        ("vision", "transformer"): "vision_model.encoder.layers.",
        ("vision", "norm_post"): "vision_model.post_layernorm.",
        ("vision", "projection"): "visual_projection.",
        ("text", "token_embedding"): "text_model.embeddings.token_embedding.weight",
        ("text", "position_embedding"): "text_model.embeddings.position_embedding.weight",
        ("text", "transformer"): "text_model.encoder.layers.",
        ("text", "norm_final"): "text_model.final_layer_norm.",
        ("text", "projection"): "text_projection.",
    },
    {
        "norm_1": ("layer_norm1.",),
        "qkv": ("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."),
        "out": ("self_attn.out_proj.",),
        "norm_2": ("layer_norm2.",),
        "mlp_in": ("mlp.fc1.",),
        "mlp_out": ("mlp.fc2.",),
    },
    as_is=(),
    unused=("logit_scale", "embeddings.position_ids"),
)
OPEN_CLIP = Layout(
    "open_clip_config.json",
    "open_clip_model.safetensors",
    open_clip_config,
    {
        ("vision", "class_embedding"): "visual.class_embedding",
        ("vision", "patch_embedding"): "visual.conv1.",
        ("vision", "position_embedding"): "visual.positional_embedding",
        ("vision", "norm_pre"): "visual.ln_pre.",
        ("vision", "transformer"): "visual.transformer.resblocks.",
        ("vision", "norm_post"): "visual.ln_post.",
        ("vision", "projection"): "visual.proj",
        ("text", "token_embedding"): "token_embedding.weight",
        ("text", "position_embedding"): "positional_embedding",
        ("text", "transformer"): "transformer.resblocks.",
        ("text", "norm_final"): "ln_final.",
        ("text", "projection"): "text_projection",
    },
    {
        "norm_1": ("ln_1.",),
        "qkv": ("attn.in_proj_",),
        "out": ("attn.out_proj.",),
        "norm_2": ("ln_2.",),
        "mlp_in": ("mlp.c_fc.",),
        "mlp_out": ("mlp.c_proj.",),
    },
    as_is=("projection",),
    unused=("logit_scale", "logit_bias", "attn_mask"),
)


def tensor_names(layout: Layout, path: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the tensors that make up the parameter at `path` of `clip.CLIP`.

    For example, ``("text", "transformer", "block_3", "mlp_in", "kernel")`` of Hugging Face's layout is
    ``("text_model.encoder.layers.3.mlp.fc1.weight",)``.
    """
    tower, module, *rest = path
    starts: tuple[str, ...] = (layout.modules[tower, module],)
    if module == "transformer":
        number = rest[0].removeprefix("block_")
        starts = tuple(f"{starts[0]}{number}.{name}" for name in layout.block[rest[1]])
    return tuple(start + _LEAVES[path[-1]] if start[-1] in "._" else start for start in starts)


def stored_shape(layout: Layout, path: tuple[str, ...], shape: tuple[int, ...], patch_size: int) -> tuple[int, ...]:
    """Shape of each stored tensor of the parameter at `path`, if the parameter has `shape`."""
    if path[1] == "patch_embedding":
        return shape[1], 3, patch_size, patch_size
    if path[-1] == "kernel" and path[1] not in layout.as_is:
        shape = shape[::-1]
    return shape[0] // len(tensor_names(layout, path)), *shape[1:]


def to_param(layout: Layout, path: tuple[str, ...], tensors: Sequence[np.ndarray]) -> np.ndarray:
    """Converts the stored tensors of the parameter at `path` to the parameter."""
    joined = np.concatenate(tensors) if len(tensors) > 1 else tensors[0]
    if path[1] == "patch_embedding":
        return joined.transpose(2, 3, 1, 0).reshape(-1, len(joined))
    return joined.T if path[-1] == "kernel" and path[1] not in layout.as_is else joined
