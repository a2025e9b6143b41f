"""The parts of `benchmarks.accelerator`, by name: ``python -m benchmarks.accelerator.parts NAME --output=DIR``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Context(NamedTuple):
    """The arguments of a part.

    name: the part's name in the results.
    output: directory of the results.
    images: uint8 [n, 32, 32, 3].
    labels: int [n].
    toy: whether sizes are those for a CPU.
    """

    name: str
    output: Path
    images: np.ndarray
    labels: np.ndarray
    toy: bool

    def write(self, **values: Any) -> None:
        """Adds a line to results.jsonl and prints it."""
        with (self.output / "results.jsonl").open("a") as file:
            file.write(json.dumps({"part": self.name, **values}, default=float) + "\n")
        print(self.name, values, flush=True)


def cifar(path: str, toy: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of the file, or random images and labels. At toy size there are only a few."""
    if path:
        with np.load(path) as file:
            images, labels = file["image"], file["label"]
    else:
        rng = np.random.default_rng(0)
        n = 100 if toy else 60_000
        images, labels = rng.integers(0, 256, (n, 32, 32, 3), np.uint8), rng.integers(10, size=n)
    return (images[:100], labels[:100]) if toy else (images, labels)


def parts() -> dict[str, Callable[[Context], None]]:
    """Returns all parts by name. JAX and PyTorch are imported only here."""
    from benchmarks.accelerator import correctness, real, speed, torch_cc

    return {
        "device": correctness.device,
        "correctness": correctness.everything,
        "cc_r18_bf16": partial(speed.cc, case="r18", dtype="bfloat16"),
        "cc_r18_bf16_deterministic": partial(speed.cc, case="r18", dtype="bfloat16"),
        "cc_r18_f32": partial(speed.cc, case="r18", dtype="float32"),
        "cc_r34_bf16": partial(speed.cc, case="r34", dtype="bfloat16"),
        "torch_r18_best": partial(torch_cc.best, case="r18"),
        "torch_r34_best": partial(torch_cc.best, case="r34"),
        "torch_r18_loader": partial(torch_cc.loader, case="r18"),
        "seeds_cmmc": speed.seeds_cmmc,
        "seeds_dmim": speed.seeds_dmim,
        "turtle": speed.turtle,
        "kmeans": speed.kmeans_speed,
        "neighbours": speed.neighbours_speed,
        "dxmc": speed.dxmc,
        "cifar10": real.cifar10,
    }


def main() -> None:
    """Runs one part. Its last line in the results marks its end."""
    parser = argparse.ArgumentParser("python -m benchmarks.accelerator.parts")
    parser.add_argument("part")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cifar", default="")
    parser.add_argument("--toy", action="store_true")
    arguments = parser.parse_args()
    images, labels = cifar(arguments.cifar, arguments.toy)
    context = Context(arguments.part, arguments.output, images, labels, arguments.toy)
    parts()[arguments.part](context)
    context.write(end=True)


if __name__ == "__main__":
    main()
