"""Speed of assigning images: this package against a PyTorch loop, taking turns in one run.

    make bench                      (installs the extra [bench])
    python -m benchmarks.prediction

The model is ResNet18 with the 7x7 stem at 32 px, batch 256, on generated images. DataLoader workers prepare the images
for PyTorch. This package runs with one device per core, as in `clustering_jax.predict`. The fastest of `ROUNDS` rounds
counts.
"""

from __future__ import annotations

import time

import jax

from benchmarks import torch_cc
from benchmarks.training import line
from clustering_jax.data.images.folder import synthetic
from clustering_jax.method import Spec
from clustering_jax.methods.cc import method as cc
from clustering_jax.parallel import device_per_core
from clustering_jax.training.evaluate import make_infer

ROUNDS, IMAGES, BATCH, SIZE = 5, 4096, 256, 32


def ours(dataset):
    """Returns ``run() -> seconds``, which assigns all images."""
    method = cc.build(Spec(10, BATCH, 1, {"train": 1}), backbone="resnet18", image_size=SIZE)
    variables = jax.jit(method.init)(jax.random.key(0), {k: v[:2] for k, v in dataset.features.items()})
    infer = make_infer(method.predict, BATCH)

    def run() -> float:
        began = time.perf_counter()
        infer(variables, dataset.features)
        return time.perf_counter() - began

    return run


def main() -> None:
    """Prints images/s of both sides and their ratio."""
    device_per_core()
    dataset = synthetic(n=IMAGES, size=SIZE)
    sides = ours(dataset), torch_cc.predictor(dataset.features["image"], SIZE, BATCH)
    compiled, _ = (side() for side in sides)
    rounds = [[side() for side in sides] for _ in range(ROUNDS)]
    line("predict, 32 px, 256", *(IMAGES / min(seconds) for seconds in zip(*rounds, strict=True)), 1.2)
    print(f"  first call with compilation {compiled:.1f} s")


if __name__ == "__main__":
    main()
