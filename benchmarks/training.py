"""Speed of whole CC training steps: this package against a PyTorch loop, taking turns in one run.

    make bench                      (installs the extra [bench]; a few minutes)
    python -m benchmarks.training

Model, batch and augmentation are the same: ResNet18 with the 7x7 stem, strength .5, generated images. The sides take
turns for `ROUNDS` rounds after a warm-up, and the fastest round of each counts, because other load can only slow a
round. The compilation of the first step is reported separately.
"""

from __future__ import annotations

import resource
import time

import jax

from benchmarks import torch_cc
from clustering_jax.data.images.folder import synthetic
from clustering_jax.method import Spec
from clustering_jax.methods.cc import method as cc
from clustering_jax.parallel import data_mesh, replicated
from clustering_jax.training.batches import Feed
from clustering_jax.training.update import init_state, make_update, optimizers

ROUNDS = 3
# Pixels, batch, steps in a round, the smallest ratio that the project promises.
TRAINING = ((32, 128, 20, 1.2), (96, 64, 10, 0.7))


def ours(dataset, size: int, batch: int):
    """Returns ``run(steps) -> seconds``; the first call compiles."""
    spec = Spec(10, batch, 1, {"train": dataset.num_examples // batch})
    method = cc.build(spec, backbone="resnet18", image_size=size)
    mesh, key = data_mesh(batch), jax.random.key(0)
    variables = jax.jit(method.init)(key, {k: v[:2] for k, v in dataset.features.items()})
    state = jax.device_put(init_state(method, variables), replicated(mesh))
    feed = Feed({"train": dataset}, seed_list=(0,), batch_size=batch, mesh=mesh, limit=4 << 30)
    update = make_update(method.phases[0], optimizers(method), mesh, feed.resident)
    done = 0

    def run(steps: int) -> float:
        nonlocal state, done
        began = time.perf_counter()
        for step in range(done, done + steps):
            state, terms = update(state, *feed(method.phases[0], step, 1, {}, 1), key)
        done += steps
        jax.block_until_ready(terms)
        return time.perf_counter() - began

    return run


def line(what: str, mine: float, theirs: float, promised: float) -> None:
    """Formats a row: images/s of both sides, the ratio, and the ratio that the project promises."""
    print(f"{what:24}{mine:10.0f}{theirs:10.0f}{mine / theirs:8.2f}{promised:10.1f}", flush=True)


def main() -> None:
    """Prints the table."""
    print(f"{'images/s':24}{'ours':>10}{'PyTorch':>10}{'ratio':>8}{'promised':>10}")
    for size, batch, steps, promised in TRAINING:
        dataset = synthetic(n=1024, size=size)
        run = ours(dataset, size, batch)
        compiled = run(1)
        peer = torch_cc.trainer(dataset.features["image"], size, batch)
        peer(1)
        rounds = [(settled(run, steps), peer(steps)) for _ in range(ROUNDS)]
        mine, theirs = (batch * steps / min(side) for side in zip(*rounds, strict=True))
        line(f"training, {size} px, {batch}", mine, theirs, promised)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"  first step with compilation {compiled:.1f} s; peak memory of both sides so far {peak:.1f} GiB",
            flush=True,
        )


def settled(function, *arguments) -> float:
    """Calls `function` after PyTorch's workers have filled their queues, because they would use the cores.

    PyTorch starts its rounds with these batches ready, which favours it slightly.
    """
    time.sleep(4)
    return function(*arguments)


if __name__ == "__main__":
    main()
