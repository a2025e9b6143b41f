"""Speed of DXMC after embedding: this package against PyTorch with faiss, taking turns in one run.

    python -m benchmarks.semantic_speed [--rows=50000 --nouns=60000 --width=512 --centers=167]

The embeddings are random. Both sides run each stage in turn on the same inputs. k-means has the published 300
iterations and 10 restarts; faiss runs one restart, which is counted ten times. The training time is the time of some
steps (the fastest of three rounds) times the published number: 20 epochs of batches of 512. First calls, with
compilation, are reported separately.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import torch_dxmc
from benchmarks.loop import Loop
from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.data.embeddings import unit_rows
from clustering_jax.kmeans.neighbours import nearest_neighbours
from clustering_jax.method import Spec
from clustering_jax.methods.dxmc import method as dxmc
from clustering_jax.methods.dxmc.semantic_space import retrieve, select_nouns, semantic_centers

BATCH, EPOCHS, CLUSTERS, RESTARTS, PROMISED = 512, 20, 10, 10, 0.5


def our_loop(image: np.ndarray, text: np.ndarray, partners: dict[str, np.ndarray]) -> Loop:
    """The training loop of this package on prepared rows."""
    dataset = Dataset({"image": image, "text": text}, row_ids(len(image)), None, "random", "all", partners=partners)
    spec = Spec(CLUSTERS, BATCH, EPOCHS, {"train": len(image) // BATCH})
    return Loop(dxmc.build(spec, optimizer={"learning_rate": 1e-3, "b2": 0.99}), dataset, BATCH)


def timed(function: Callable, *arguments: object) -> tuple[np.ndarray, float]:
    """The result of a call, and its seconds."""
    began = time.perf_counter()
    result = np.asarray(function(*arguments))
    return result, time.perf_counter() - began


def our_nouns(image: np.ndarray, nouns: np.ndarray, centers: int) -> np.ndarray:
    """Our counterpart of `torch_dxmc.kept_nouns`."""
    means = semantic_centers(jax.random.key(0), jnp.asarray(image), centers, restarts=RESTARTS)
    return select_nouns(means, nouns, torch_dxmc.PER_CENTER)


def show(name: str, ours: float, theirs: float) -> None:
    """Prints a row of the table."""
    print(f"{name:24}{ours:10.1f}{theirs:10.1f}{ours / theirs:8.2f}", flush=True)


def main() -> None:
    """Prints one row per stage."""
    parser = argparse.ArgumentParser("python -m benchmarks.semantic_speed")
    for name, default in (("rows", 50_000), ("nouns", 60_000), ("width", 512), ("centers", 167), ("timed", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    image, nouns = (unit_rows(rng.normal(size=(n, args.width)), "random") for n in (args.rows, args.nouns))
    print(f"{'seconds':24}{'ours':>10}{'PyTorch':>10}{'ratio':>8}")
    total, first = np.zeros(2), 0.0

    def stage(name: str, ours: Callable, theirs: Callable, times: int = 1) -> tuple[np.ndarray, np.ndarray]:
        nonlocal first
        _, cold = timed(ours)
        (a, mine), (b, peer) = timed(ours), timed(theirs)
        show(name, mine, peer * times)
        total[:] += mine, peer * times
        first += max(cold - mine, 0)
        return a, b

    kept, _ = stage(
        "k-means and nouns",
        partial(our_nouns, image, nouns, args.centers),
        partial(torch_dxmc.kept_nouns, image, nouns, args.centers, 1),
        RESTARTS,
    )
    text, _ = stage(
        "retrieval", partial(retrieve, image, nouns[kept]), partial(torch_dxmc.retrieve, image, nouns[kept])
    )
    partners = {}
    for name, rows in (("image", image), ("text", text)):
        partners[name], theirs = stage(
            f"neighbours, {name}",
            partial(nearest_neighbours, rows, torch_dxmc.NEIGHBOURS),
            partial(torch_dxmc.neighbours, rows),
        )
        print(f"  equal to faiss: {np.mean(partners[name] == theirs):.4f} of the neighbours")
    loop, peer = our_loop(image, text, partners), torch_dxmc.Trainer(image, text, partners, BATCH, CLUSTERS)
    rounds = [(loop.steps("contrast", args.timed), peer.steps(args.timed)) for _ in range(4)]
    per_step = np.min(rounds[1:], axis=0) / args.timed
    steps = EPOCHS * (args.rows // BATCH)
    first += rounds[0][0] - per_step[0] * args.timed
    show("training", *(per_step * steps))
    total += per_step * steps
    show("all", *total)
    show("all, with first calls", total[0] + first, total[1])
    print(f"promised: at most {PROMISED}; training {per_step[0] * 1e3:.1f} and {per_step[1] * 1e3:.1f} ms a step")


if __name__ == "__main__":
    main()
