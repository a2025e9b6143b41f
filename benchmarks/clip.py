"""Speed of CLIP's image features: this package against the PyTorch model of transformers, taking turns in one run.

    pip install -e '.[bench]' transformers
    python -m benchmarks.clip

Both use ViT-B/32 with random weights, float32 and all cores. PyTorch gets normalised floats. This package gets uint8
images, which it normalises itself. It is measured twice: as one program on one device, and by `evaluate.make_infer`
with one device per core, as `clustering_jax.predict` does. The result is the median of `ROUNDS` rounds.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from clustering_jax.nn.vit.clip import CLIP, CONFIGS
from clustering_jax.parallel import device_per_core
from clustering_jax.training.evaluate import make_infer

ROUNDS, BATCHES = 7, (32, 64)
CONFIG = CONFIGS["ViT-B/32"]


def ours(images: np.ndarray) -> tuple[Callable[[], object], Callable[[], object]]:
    """Returns the functions that compute features on one device, and on one device per core."""
    model = CLIP(CONFIG)
    ids = np.zeros((1, CONFIG.context_length), np.int32)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1], ids)
    features = jax.jit(lambda variables, x: model.apply(variables, x, method="image_features"))
    infer = make_infer(lambda variables, batch: features(variables, batch["image"]), len(images))
    return lambda: np.asarray(features(variables, images)), lambda: infer(variables, {"image": images})


def theirs(size: int) -> Callable[[], object]:
    """Features of `size` images."""
    torch.set_num_threads(os.cpu_count() or 1)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(projection_dim=CONFIG.embed_dim)).eval()
    pixels = torch.randn(size, 3, CONFIG.image_size, CONFIG.image_size)
    return torch.no_grad()(lambda: model(pixels).image_embeds)


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Prints images/s of all sides, and the ratio of our faster form to PyTorch."""
    device_per_core()
    print(f"{'images/s, ViT-B/32':24}{'one device':>12}{'each core':>12}{'PyTorch':>12}{'ratio':>8}")
    for size in BATCHES:
        images = np.random.RandomState(0).randint(0, 256, (size, 224, 224, 3)).astype(np.uint8)
        sides = (*ours(images), theirs(size))
        for run in sides:
            run()
        rounds = [[seconds(run) for run in sides] for _ in range(ROUNDS)]
        one, each, peer = (size / statistics.median(side) for side in zip(*rounds, strict=True))
        print(f"batch {size:<18}{one:12.1f}{each:12.1f}{peer:12.1f}{max(one, each) / peer:8.2f}", flush=True)


if __name__ == "__main__":
    main()
