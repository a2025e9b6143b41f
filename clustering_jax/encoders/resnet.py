"""ResNet-18, -34 and -50 with ImageNet weights: torchvision's files, timm's and Hugging Face's directories."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from clustering_jax.data.images.preprocessing import FILTERS, IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from clustering_jax.encoders.base import Encoder, directory_of, read_preprocessing
from clustering_jax.errors import UserError
from clustering_jax.nn.resnet import DEPTHS, ResNet
from clustering_jax.nn.vit.blocks import normalized
from clustering_jax.nn.vit.clip_config import demand, read_json, typed
from clustering_jax.typing import Array
from clustering_jax.weights.named import LEAVES
from clustering_jax.weights.tensors import Stored, Tensors, open_tensors, read_tree

# torchvision's first weights, and what timm's and Hugging Face's files leave out where it is so.
_PREPROCESSING = Preprocessing((224, 224), 256, "bilinear")
_BASIC, _BOTTLENECK = [64, 128, 256, 512], [256, 512, 1024, 2048]


def load_torchvision(path: Path, dtype: Any) -> Encoder:
    """The encoder in a file of torchvision's names; the depth is that of its blocks.

    Raises:
      UserError: the file is damaged or of another architecture.
    """
    tensors = open_tensors(path)
    return _encoder(path.stem, tensors, _depth_of(tensors), _torch_name, _PREPROCESSING, dtype)


def load_timm(path: Path, dtype: Any) -> Encoder:
    """The encoder in a directory that timm wrote: torchvision's names and a `pretrained_cfg`.

    Raises:
      UserError: as `load_torchvision`, or the config asks for what is not done here.
    """
    directory = directory_of(path)
    where = directory / "config.json"
    tree = read_json(where)
    settings = typed(
        where,
        tree.get("pretrained_cfg"),
        {
            "input_size": [3, 224, 224],
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
        },
    )
    for name in ("input_size", "mean", "std"):
        if len(settings[name]) != 3 or not all(isinstance(value, int | float) for value in settings[name]):
            raise UserError(f"{where}: {name} {settings[name]!r} is not supported, only 3 numbers")
    _, height, width = settings["input_size"]
    demand(where, settings, {"interpolation": tuple(FILTERS), "crop_mode": ("center",)})
    short = int(height / settings["crop_pct"])
    statistics = tuple(settings["mean"]), tuple(settings["std"])
    preprocessing = Preprocessing((height, width), short, settings["interpolation"], *statistics)
    return _encoder(
        directory.resolve().name, open_tensors(path), tree["architecture"], _torch_name, preprocessing, dtype
    )


def load_hugging_face(path: Path, dtype: Any) -> Encoder:
    """The encoder in Hugging Face's directory.

    Raises:
      UserError: as `load_timm`.
    """
    directory = directory_of(path)
    where = directory / "config.json"
    tree = read_json(where)
    usual = {"embedding_size": (64,), "num_channels": (3,), "hidden_act": ("relu",)}
    demand(where, tree, {**usual, "downsample_in_first_stage": (False,), "downsample_in_bottleneck": (False,)})
    tree = typed(where, tree, {"depths": [3, 4, 6, 3], "hidden_sizes": _BOTTLENECK, "layer_type": "bottleneck"})
    depths, widths, bottleneck = tuple(tree["depths"]), tree["hidden_sizes"], tree["layer_type"] == "bottleneck"
    names = {layout: name for name, layout in DEPTHS.items()}
    if (depths, bottleneck) not in names or widths != (_BOTTLENECK if bottleneck else _BASIC):
        raise UserError(
            f"{where}: stages of {list(depths)} blocks and {widths} channels are none of {', '.join(DEPTHS)}"
        )
    preprocessing = read_preprocessing(directory, Preprocessing((224, 224), 256, "bicubic"))
    tensors, depth = open_tensors(path), names[depths, bottleneck]
    return _encoder(directory.resolve().name, tensors, depth, _hugging_face_name, preprocessing, dtype)


def _encoder(
    name: str,
    tensors: Tensors,
    depth: str,
    name_of: Callable[[tuple[str, ...]], str],
    preprocessing: Preprocessing,
    dtype: Any,
) -> Encoder:
    model = ResNet(depth, dtype=dtype)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), False))
    layout = {path: _stored(name_of(path), leaf.shape) for path, leaf in flatten_dict(variables).items()}
    params = read_tree(
        tensors,
        unflatten_dict(layout),
        f"a {depth} with ImageNet's stem",
        prefixes=("module.", "resnet."),
        unused=("fc.", "classifier."),
    )
    apply = functools.partial(_features, model, preprocessing)
    return Encoder(name, tensors.checksum, params, apply, preprocessing)


def _features(model: ResNet, settings: Preprocessing, variables: Mapping[str, Any], images: Array) -> Array:
    return jnp.asarray(model.apply(variables, normalized(images, settings.mean, settings.std), False))


def _stored(name: str, shape: tuple[int, ...]) -> Stored:
    if len(shape) == 1:
        return Stored((name,), shape)
    return Stored((name,), (shape[3], shape[2], *shape[:2]), lambda x: np.transpose(x, (2, 3, 1, 0)))


def _torch_name(path: tuple[str, ...]) -> str:
    """``("params", "layer1_0", "conv1", "kernel")`` -> ``"layer1.0.conv1.weight"``."""
    _collection, *modules, leaf = path
    return f"{'.'.join(modules).replace('_', '.')}.{LEAVES[leaf]}"


def _hugging_face_name(path: tuple[str, ...]) -> str:
    """``("params", "layer1_0", "conv1", "kernel")`` -> ``"encoder.stages.0.layers.0.layer.0.convolution.weight"``."""
    _collection, *modules, leaf = path
    kind = "convolution" if leaf == "kernel" else "normalization"
    if len(modules) == 1:
        return f"embedder.embedder.{kind}.{LEAVES[leaf]}"
    stage, block = modules[0].removeprefix("layer").split("_")
    number = modules[1][-1]
    inside = "shortcut" if modules[1].startswith("downsample") else f"layer.{int(number) - 1}"
    return f"encoder.stages.{int(stage) - 1}.layers.{block}.{inside}.{kind}.{LEAVES[leaf]}"


def _depth_of(tensors: Tensors) -> str:
    """By the number of blocks in each stage."""
    blocks = {m.groups() for m in (re.search(r"\blayer(\d)\.(\d+)\.", name) for name in tensors.shapes) if m}
    counts = tuple(sum(layer == i for layer, _ in blocks) for i in "1234")
    bottleneck = any(".conv3." in name for name in tensors.shapes)
    for name, stages in DEPTHS.items():
        if stages == (counts, bottleneck):
            return name
    raise UserError(f"{tensors.path}: stages of {list(counts)} blocks are none of {', '.join(DEPTHS)}")
