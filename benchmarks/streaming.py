"""Speed of batches from streamed sets and from memory, and of CC's training from both, in one run.

    pip install -e '.[bench]'
    python -m benchmarks.streaming --tfds_dir=DIR      (DIR has CIFAR-10, written by `data.prepare`; some minutes)

The sources are CIFAR-10's test images as array_record, the same images as files, and generated JPEGs of 256 pixels that
are resized to 224. All are on the local disk, and so in the system's cache. The sources take turns for `ROUNDS` rounds,
and the best round counts, because other load can only slow a round.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from benchmarks.training import ours
from clustering_jax import data
from clustering_jax.data.base import Dataset
from clustering_jax.data.images.folder import synthetic
from clustering_jax.method import Phase
from clustering_jax.parallel import data_mesh
from clustering_jax.training.batches import Feed

ROUNDS = 3
BATCH = 128
PHASE = Phase("any", 0, ())
BLOCKS = {"shuffle_block": 256, "shuffle_window": 16}
# Number of file names that each JPEG of 256 pixels has.
LARGE, NAMES = 400, 25


def batches(dataset: Dataset):
    """Returns ``run(count) -> images/s``, which puts batches on the devices one after the other."""
    feed = Feed({"train": dataset}, seed_list=(0,), batch_size=BATCH, mesh=data_mesh(BATCH), limit=0)
    done = 0

    def run(count: int) -> float:
        nonlocal done
        began = time.perf_counter()
        for step in range(done, done + count):
            jax.block_until_ready(feed(PHASE, step, 1, {}, 1)[0])
        done += count
        return BATCH * count / (time.perf_counter() - began)

    run(4)  # images that are prefetched before the first batch is used
    return run


def table(what: str, runs: dict, count: int) -> None:
    """Prints one row per source: images/s, and the ratio to the first row."""
    rounds = [{name: run(count) for name, run in runs.items()} for _ in range(ROUNDS)]
    best = {name: max(rates[name] for rates in rounds) for name in runs}
    print(f"{what:44}{'images/s':>10}{'of memory':>11}")
    for name, rate in best.items():
        print(f"  {name:42}{rate:10.0f}{rate / next(iter(best.values())):11.3f}", flush=True)


def rate_of(step):
    """Turns ``run(steps) -> seconds`` of training into ``run(count) -> images/s``. Compiles."""
    step(1)
    return lambda count: BATCH * count / step(count)


def files_of(dataset: Dataset, directory: Path) -> None:
    """Writes the images as PNGs, which keep the pixels unchanged."""
    directory.mkdir()
    for name, image in zip(dataset.ids, dataset.features["image"], strict=True):
        Image.fromarray(image).save(directory / f"{name}.png", compress_level=1)


def large_files(directory: Path) -> None:
    """Writes JPEGs of 256 pixels."""
    directory.mkdir()
    for i in range(LARGE):
        image = synthetic(n=1, size=256, seed=i).features["image"][0]
        Image.fromarray(image).save(directory / f"{i}_0.jpg", quality=90)
        for copy in range(1, NAMES):
            os.link(directory / f"{i}_0.jpg", directory / f"{i}_{copy}.jpg")


def peak() -> float:
    """The peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def large(directory: Path) -> None:
    """Images/s of 224-pixel images, and the memory that an epoch of them needs."""
    streamed = data.load("folder", path=directory, size=224, streaming=True)
    run = batches(streamed)
    run(20)
    before, steps = peak(), streamed.num_examples // BATCH
    rate = run(steps)
    size = np.prod(streamed.features["image"].shape) / 2**20
    print(
        f"folder of 256-pixel JPEGs, to 224: {rate:.0f} images/s; peak memory grows by {peak() - before:.0f} MiB",
        end="",
    )
    print(f" in an epoch of {steps * BATCH} images, {size:.0f} MiB as pixels", flush=True)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser("python -m benchmarks.streaming")
    parser.add_argument("--tfds_dir", required=True)
    cifar = {"name": "cifar10", "splits": "test", "tfds_dir": parser.parse_args().tfds_dir}
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        large_files(root / "large")
        large(root / "large")
        memory = data.load("tfds", **cifar)
        files_of(memory, root / "small")
        sets = {
            "memory": memory,
            "array_record": data.load("tfds", **cifar, streaming=True),
            "array_record, blocks of 256, 16 at a time": data.load("tfds", **cifar, streaming=True, **BLOCKS),
            "folder": data.load("folder", path=root / "small", size=32, streaming=True),
        }
        table("batches of 32-pixel images", {name: batches(dataset) for name, dataset in sets.items()}, 150)
        steps = {name: rate_of(ours(sets[name], 32, BATCH)) for name in ("memory", "array_record", "folder")}
        table("training CC, ResNet18, 32 pixels", steps, 20)


if __name__ == "__main__":
    main()
