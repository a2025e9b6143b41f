"""Speed of TURTLE's steps on all rows: this package against PyTorch, and ten seeds against one.

    python -m benchmarks.turtle_speed [--rows=10000 --width=1280 --clusters=10 --steps=16]

The features are random: the time of a step does not depend on them. All sides take turns in one run, for three rounds
after a warm-up that compiles; the fastest round counts.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.loop import Loop
from clustering_jax import cli
from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.method import Spec
from clustering_jax.methods import turtle

# The project promises: at most half the time of PyTorch, and ten seeds in at most four times the time of one.
WALL, SEEDS, ROUNDS = 0.5, 4.0, 3


def ours(rows: np.ndarray, clusters: int, seeds: int) -> Loop:
    """The published steps, for one seed or several side by side."""
    n = len(rows)
    dataset = Dataset({"image": rows}, row_ids(n), None, "random", "all")
    return Loop(turtle.build(Spec(clusters, n, 1, {"train": 1})), dataset, n, seeds)


def main() -> None:
    """Prints milliseconds of a step, and the ratios."""
    from benchmarks.torch_turtle import Trainer

    parser = argparse.ArgumentParser("python -m benchmarks.turtle_speed")
    for name, value in (("rows", 10_000), ("width", 1280), ("clusters", 10), ("steps", 16)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    rows = np.random.default_rng(0).normal(size=(a.rows, a.width)).astype(np.float32)
    one, ten, torch = ours(rows, a.clusters, 1), ours(rows, a.clusters, 10), Trainer(rows, a.clusters)
    sides = {
        "one seed": lambda: one.steps("transfer", a.steps),
        "ten seeds": lambda: ten.steps("transfer", a.steps),
        "PyTorch, one seed": lambda: torch.steps(a.steps),
    }
    turns = [{name: 1000 * side() / a.steps for name, side in sides.items()} for _ in range(1 + ROUNDS)]
    best = {name: min(turn[name] for turn in turns[1:]) for name in sides}
    for name, value in best.items():
        print(f"{name:20}{value:8.0f} ms a step")
    print(f"one seed over PyTorch {best['one seed'] / best['PyTorch, one seed']:.2f}   promised: at most {WALL}")
    print(f"ten seeds over one {best['ten seeds'] / best['one seed']:.2f}   promised: at most {SEEDS}")


if __name__ == "__main__":
    cli.use_huge_pages()
    main()
