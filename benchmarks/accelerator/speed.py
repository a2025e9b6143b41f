"""Speed of this package: training steps, several seeds side by side, k-means, neighbours, and the stages of DXMC."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import crossmodal_speed, multiview_speed
from benchmarks.loop import Loop
from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.data.embeddings import unit_rows
from clustering_jax.data.planted import planted
from clustering_jax.kmeans import kmeans
from clustering_jax.kmeans.neighbours import nearest_neighbours
from clustering_jax.method import Spec
from clustering_jax.methods import METHODS
from clustering_jax.methods.dxmc.semantic_space import retrieve, select_nouns, semantic_centers

if TYPE_CHECKING:
    from benchmarks.accelerator.parts import Context

# Backbone, stem, pixels, batch, number of timed steps.
CASES = {"r18": ("resnet18", "small", 32, 512, 320), "r34": ("resnet34", "imagenet", 224, 256, 96)}


def best_of(function: Callable[[], object], rounds: int = 3) -> tuple[float, float]:
    """Seconds of the first call, and of the fastest of `rounds` later calls."""
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - began)
    return times[0], min(times[1:])


def cc(context: Context, case: str, dtype: str) -> None:
    """Images per second of whole steps; an image counts once, although two views of it are encoded."""
    backbone, stem, size, batch, steps = CASES[case]
    size, batch, steps, width = (32, 16, 16, 8) if context.toy else (size, batch, steps, 64)
    dataset = Dataset({"image": context.images}, row_ids(len(context.images)), None, "cifar10", "all")
    spec = Spec(10, batch, 1000, {"train": len(context.images) // batch})
    settings = {"backbone": backbone, "stem": stem, "image_size": size, "dtype": dtype, "width": width}
    loop = Loop(METHODS["cc"](spec, **settings), dataset, batch)
    first, seconds = best_of(lambda: loop.steps("contrast", steps))
    memory = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**30
    context.write(images_per_second=batch * steps / seconds, first_call_s=first, peak_gib=memory)
    context.write(bitwise_repeatable=repeatable(loop))


def repeatable(loop: Loop) -> bool:
    """Checks that two runs of 32 steps from the same state end bitwise equal. A resumed run depends on this."""
    start, ends = jax.device_get(loop.state), []
    for _ in range(2):
        loop.state = jax.device_put(start, jax.tree.map(lambda x: x.sharding, loop.state))
        loop.steps("contrast", 32)
        ends.append(jax.device_get(loop.state.variables["params"]))
    return all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, ends), strict=True))


def seeds_cmmc(context: Context) -> None:
    """Times a whole run at the size of BDGP, with one seed and with ten seeds side by side."""
    rows, widths, batch = (300, [40, 20], 64) if context.toy else (2500, [1750, 79], 256)
    data = multiview_speed.generated(rows, widths, 5)
    steps = {"reconstruct": 200 * (rows // batch), "contrast": 10 * (rows // batch), "targets": 1, "match": 50}
    timed = {
        "reconstruct": 16 if context.toy else 160,
        "contrast": 16 if context.toy else 160,
        "targets": 1,
        "match": 16,
    }
    for seeds in (1, 10):
        loop, total = multiview_speed.ours(data, batch, 5, (200, 10), 50, "float32", seeds), 0.0
        for part, count in timed.items():
            call = (lambda: loop.targets("match")) if part == "targets" else (lambda: loop.steps(part, count))  # noqa: B023
            total += best_of(call, 1)[1] / count * steps[part]
        context.write(seeds=seeds, run_s=total)


def seeds_dmim(context: Context) -> None:
    """Times 500 steps at the size of NUS-WIDE, with new labels every five steps, for one seed and for ten."""
    data = planted(400 if context.toy else 20_000, width=20 if context.toy else 100, num_clusters=8)
    for seeds in (1, 10):
        loop = crossmodal_speed.ours(data, 8, seeds)
        draw = best_of(lambda: loop.targets("clusters"), 1)[1]  # noqa: B023
        steps = best_of(lambda: loop.steps("clusters", crossmodal_speed.REFRESH), 3)[1]  # noqa: B023
        context.write(seeds=seeds, run_s=500 / crossmodal_speed.REFRESH * (draw + steps), draw_s=draw)


def turtle(context: Context) -> None:
    """Times steps on all rows, with one seed and with ten seeds side by side."""
    n, d = (300, 20) if context.toy else (10_000, 1280)
    rows = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    data, count = Dataset({"image": rows}, row_ids(n), None, "random", "all"), 16 if context.toy else 160
    for seeds in (1, 10):
        loop = Loop(METHODS["turtle"](Spec(10, n, 1, {"train": 1})), data, n, seeds)
        name = next(iter(loop.phases))
        first, seconds = best_of(lambda: loop.steps(name, count), 2)  # noqa: B023
        context.write(seeds=seeds, ms_per_step=1e3 * seconds / count, first_call_s=first)


def kmeans_speed(context: Context) -> None:
    """Times ten restarts of 20 iterations, with several block sizes."""
    n, d, k = (2000, 16, 5) if context.toy else (1_000_000, 512, 10)
    x = (
        3 * jax.random.normal(jax.random.key(1), (n, d))
        + jax.random.normal(jax.random.key(0), (k, d))[jnp.arange(n) % k]
    )
    for block in (256, 1024) if context.toy else (2048, 32768):
        first, seconds = best_of(lambda: kmeans(jax.random.key(0), x, k, restarts=10, max_iter=20, block=block), 1)  # noqa: B023
        context.write(rows=n, columns=d, block=block, seconds=seconds, first_call_s=first)


def neighbours_speed(context: Context) -> None:
    """Times the search of twenty exact neighbours, with several block sizes."""
    n, d = (1500, 16) if context.toy else (200_000, 512)
    x = jax.random.normal(jax.random.key(0), (n, d))
    for block in (128,) if context.toy else (1024, 8192):
        first, seconds = best_of(lambda: nearest_neighbours(x, 20, block=block), 1)  # noqa: B023
        context.write(rows=n, columns=d, block=block, seconds=seconds, first_call_s=first)


def dxmc(context: Context) -> None:
    """Times the stages before training, and a step, at the size of CIFAR-10 with CLIP embeddings of 512 columns."""
    n, nouns, d, m, batch = (600, 500, 16, 6, 64) if context.toy else (50_000, 60_000, 512, 167, 512)
    rng = np.random.default_rng(0)
    image, words = (unit_rows(rng.normal(size=(k, d)), "random") for k in (n, nouns))
    centers = semantic_centers(jax.random.key(0), jnp.asarray(image), m, restarts=10)
    kept = words[select_nouns(np.asarray(centers), words, 5)]
    stages = {
        "centers": lambda: semantic_centers(jax.random.key(0), jnp.asarray(image), m, restarts=10),
        "retrieval": lambda: retrieve(image, kept),
        "neighbours": lambda: nearest_neighbours(image, 50),
    }
    for stage, function in stages.items():
        context.write(stage=stage, seconds=best_of(function, 1)[1])
    partners = np.asarray(nearest_neighbours(image, 50))
    features = {"image": image, "text": np.asarray(retrieve(image, kept))}
    data = Dataset(features, row_ids(n), None, "random", "all", partners={"image": partners, "text": partners})
    loop, count = Loop(METHODS["dxmc"](Spec(10, batch, 20, {"train": n // batch})), data, batch), 32
    context.write(stage="step", ms=1e3 * best_of(lambda: loop.steps("contrast", count))[1] / count)
