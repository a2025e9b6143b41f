"""Reads the JSON files of a CLIP model, in the layout of Hugging Face or of open_clip.

A setting that `clip.CLIP` does not support raises an error that names it. No setting is silently ignored.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from clustering_jax.errors import UserError, nearest
from clustering_jax.nn.vit.clip import ACTIVATIONS, CONFIGS, LARGEST_ID, ClipConfig, Tower

# Defaults of each layout, for settings that its files leave out.
_HF_TOWER = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_HF_VISION = {
    **{**_HF_TOWER, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    **{"image_size": 224, "patch_size": 32, "num_channels": 3},
}
_HF_TEXT = {
    **{**_HF_TOWER, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048},
    **{"max_position_embeddings": 77, "vocab_size": 49408, "eos_token_id": 49407},
}
_OPEN_VISION = {"width": 768, "layers": 12, "head_width": 64, "mlp_ratio": 4.0, "image_size": 224, "patch_size": 16}
_OPEN_TEXT = {"width": 512, "layers": 12, "heads": 8, "mlp_ratio": 4.0, "context_length": 77, "vocab_size": 49408}
# Settings of open_clip that matter only for training, and the values of other settings that `clip.CLIP` supports.
_OPEN_TRAINING = {"init_logit_scale", "init_logit_bias", "output_tokens", "pad_id", "patch_dropout"}
_OPEN_USUAL = {"pool_type": ("tok", "argmax"), "pos_embed_type": ("learnable",), "proj_type": ("linear",)}
_CLIP = CONFIGS["ViT-B/32"]
# Most pixels of a side, and the largest other numbers: no model has more.
MAX_SIDE = 2**14
LARGEST = {"image_size": MAX_SIDE, "layers": 256, "num_hidden_layers": 256, "vocab_size": 2**24, "eos_token_id": 2**24}


def hf_config(path: Path) -> ClipConfig:
    """Reads Hugging Face's `config.json`, and the file of its image processor in the same directory if there is one.

    Args:
      path: path of `config.json`.

    Raises:
      UserError: a file is damaged, belongs to another model, or has a setting that `clip.CLIP` does not support.
    """
    tree = read_json(path)
    if tree.get("model_type") != "clip":
        raise UserError(f"{path} describes a model of type {tree.get('model_type')!r}, not of type 'clip'")
    vision, text = (_hf_section(path, tree, *x) for x in (("vision_config", _HF_VISION), ("text_config", _HF_TEXT)))
    demand(path, vision, {"num_channels": (3,)})
    config = ClipConfig(
        _hf_tower(vision),
        _hf_tower(text),
        embed_dim=typed(path, tree, {"projection_dim": 512})["projection_dim"],
        patch_size=vision["patch_size"],
        image_size=vision["image_size"],
        context_length=text["max_position_embeddings"],
        vocab_size=text["vocab_size"],
        eos_token_id=text["eos_token_id"],
        **_hf_images(path.parent, vision["image_size"]),
    )
    return _checked(path, config)


def open_clip_config(path: Path) -> ClipConfig:
    """Reads open_clip's `open_clip_config.json`.

    Args:
      path: path of the file.

    Raises:
      UserError: as in `hf_config`.
    """
    tree = read_json(path)
    model = typed(path, tree.get("model_cfg"), {"embed_dim": 512})
    vision = typed(path, model.get("vision_cfg"), _OPEN_VISION)
    text = typed(path, model.get("text_cfg"), _OPEN_TEXT)
    for section, known in ((model, ("embed_dim", "quick_gelu", "vision_cfg", "text_cfg")), (vision, ()), (text, ())):
        _refuse_others(path, section, {*known, *_OPEN_VISION, *_OPEN_TEXT})
    size, activation = vision["image_size"], "quick_gelu" if model.get("quick_gelu") else "gelu"
    config = ClipConfig(
        _open_tower(vision, vision["width"] // vision["head_width"], activation),
        _open_tower(text, text["heads"], activation),
        embed_dim=model["embed_dim"],
        patch_size=vision["patch_size"],
        image_size=size,
        context_length=text["context_length"],
        vocab_size=text["vocab_size"],
        eos_token_id=LARGEST_ID,
        **_open_images(path, tree.get("preprocess_cfg"), size),
    )
    return _checked(path, config)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Raises:
      UserError: the file can't be read or does not hold a JSON object.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object")
    return tree


def typed(path: Path, section: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`section` with `defaults` for missing settings.

    Every setting in `defaults` must have the type of its default. Numbers must be positive, and of a size that some
    model has: what a file claims is allocated later.
    """
    if not isinstance(section, dict | None):
        raise UserError(f"{path}: {section!r} is not a JSON object")
    settings = {**defaults, **(section or {})}
    for name, default in defaults.items():
        value, number = settings[name], isinstance(default, int | float)
        same = isinstance(value, (int, float) if isinstance(default, float) else type(default))
        if not same or isinstance(value, bool) or (number and not 0 < value <= LARGEST.get(name, 2**20)):
            raise UserError(f"{path}: {name} is {value!r}, expected a value like {default!r}")
    return settings


def demand(path: Path, section: Mapping, values: Mapping[str, Collection]) -> None:
    """Raises UserError if a setting of `section` is not among its supported `values`."""
    for name, known in values.items():
        if name in section and section[name] not in known:
            raise UserError(f"{path}: {name} {section[name]!r} is not supported, only {next(iter(known))!r}")


def _refuse_others(path: Path, section: Mapping, known: Collection[str]) -> None:
    """Raises UserError for settings of architectures other than CLIP: all but `known` must be off or as in CLIP."""
    demand(path, section, _OPEN_USUAL)
    for name, value in section.items():
        if value and name not in {*known, *_OPEN_TRAINING, *_OPEN_USUAL}:
            raise UserError(f"{path}: {name} {value!r} is not supported, only CLIP's own transformers")


def _hf_section(path: Path, tree: Mapping, name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A section of the config. Old files also have a section "NAME_dict"; then Hugging Face uses only that one."""
    old = tree.get(f"{name}_dict")
    return typed(path, tree.get(name) if old is None else old, defaults)


def _hf_tower(section: Mapping) -> Tower:
    return Tower(
        width=section["hidden_size"],
        layers=section["num_hidden_layers"],
        heads=section["num_attention_heads"],
        hidden=section["intermediate_size"],
        activation=section["hidden_act"],
        epsilon=section["layer_norm_eps"],
    )


def _hf_images(directory: Path, image_size: int) -> dict[str, Any]:
    """`resize`, `mean` and `std` of the image processor; CLIP's defaults if there is no file."""
    path, images = directory / "preprocessor_config.json", None
    if path.is_file():
        images = read_json(path)
    elif (path := directory / "processor_config.json").is_file():
        images = read_json(path).get("image_processor")
    square = {"height": image_size, "width": image_size}
    images = typed(path, images, {"image_mean": list(_CLIP.mean), "image_std": list(_CLIP.std)})
    demand(path, images, {"crop_size": (image_size, square), "resample": (3,)})
    demand(path, images, {f"do_{step}": (True,) for step in ("resize", "center_crop", "rescale", "normalize")})
    size = images.get("size", image_size)
    resize = size.get("shortest_edge") if isinstance(size, dict) else size
    if not isinstance(resize, int) or not image_size <= resize <= MAX_SIDE:
        raise UserError(f"{path}: size {size!r} is not supported, only {{'shortest_edge': {image_size} or more}}")
    return {"resize": resize, "mean": tuple(images["image_mean"]), "std": tuple(images["image_std"])}


def _open_tower(section: Mapping, heads: int, activation: str) -> Tower:
    hidden = int(section["width"] * section["mlp_ratio"])
    return Tower(section["width"], section["layers"], heads, hidden, activation)


def _open_images(path: Path, section: Any, image_size: int) -> dict[str, Any]:
    images = typed(path, section, {"mean": list(_CLIP.mean), "std": list(_CLIP.std)})
    usual = {"mode": ("RGB",), "interpolation": ("bicubic",), "resize_mode": ("shortest",)}
    demand(path, images, {"size": (image_size, [image_size] * 2), **usual})
    return {"resize": image_size, "mean": tuple(images["mean"]), "std": tuple(images["std"])}


def _checked(path: Path, config: ClipConfig) -> ClipConfig:
    for tower in (config.vision, config.text):
        if tower.activation not in ACTIVATIONS:
            raise UserError(f"{path}: unknown activation '{tower.activation}'{nearest(tower.activation, ACTIVATIONS)}")
        if not tower.heads or tower.width % tower.heads:
            raise UserError(f"{path}: a width of {tower.width} can't be split into {tower.heads} heads")
    if config.image_size % config.patch_size:
        raise UserError(
            f"{path}: images of {config.image_size} pixels can't be cut into patches of {config.patch_size}"
        )
    for name, values in (("mean", config.mean), ("std", config.std)):
        if len(values) != 3 or not all(isinstance(v, int | float) and v > 0 for v in values):
            raise UserError(f"{path}: {name} {list(values)} is not supported, only a positive number for each channel")
    return config
