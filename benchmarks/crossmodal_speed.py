"""Speed of DMIM at the size of NUS-WIDE: this package against PyTorch, and ten seeds against one.

    python -m benchmarks.crossmodal_speed [--rows=20000 --width=100 --clusters=8 --epochs=500]

The data are planted pairs. Both sides take turns in one run. An epoch is a step on all rows, and the labels are
refreshed every five epochs. The time of a run is the time of `--timed` epochs with their refreshes (the fastest of
three rounds after a warm-up), scaled to the published number of epochs. The compilation time of this package is
reported separately. The script also prints the memory of a step, from the compiled program.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from benchmarks.loop import Loop
from clustering_jax.data.base import Dataset
from clustering_jax.data.planted import planted
from clustering_jax.method import Spec
from clustering_jax.methods.dmim import method as dmim
from clustering_jax.training.loop import LOOP_STEPS

if TYPE_CHECKING:
    from benchmarks.torch_dmim import Trainer

REFRESH = 5
# The project promises: a whole run takes at most half the time of PyTorch, ten seeds take at most six times as long as
# one seed, and a step needs at most 2 GB.
WALL, SEEDS, MEMORY = 0.5, 6.0, 2.0


def ours(dataset: Dataset, clusters: int, seeds: int = 1) -> Loop:
    """The published recipe."""
    rows = dataset.num_examples
    spec = Spec(clusters, rows, LOOP_STEPS, {"train": 1})
    return Loop(dmim.build(spec, optimizer={"learning_rate": 5e-4}), dataset, rows, seeds)


def seconds(side: Loop | Trainer, epochs: int) -> float:
    """Seconds of `epochs` epochs with the refreshes of the labels in them."""
    began = time.perf_counter()
    if isinstance(side, Loop):
        for _ in range(0, epochs, REFRESH):
            side.targets("clusters")
            side.steps("clusters", REFRESH)
    else:
        side.steps(epochs)
    return time.perf_counter() - began


def compare(sides: dict[str, Loop | Trainer], timed: int, epochs: int, promised: float) -> None:
    """Prints the seconds of a whole run of each side, and the ratio of the first to the second."""
    rounds = [{name: seconds(side, timed) for name, side in sides.items()} for _ in range(4)]
    best = {name: min(turn[name] for turn in rounds[1:]) for name in sides}
    a, b = (best[name] * epochs / timed for name in sides)
    first = {name: rounds[0][name] - best[name] for name in sides}
    names = " and ".join(sides)
    print(f"{names}, {epochs} epochs: {a:.1f} and {b:.1f} s, ratio {a / b:.2f}   promised: at most {promised}")
    a, b = (time + first[name] for time, name in zip((a, b), sides, strict=True))
    print(f"{'with first calls':>{len(names)}}: {a:.1f} and {b:.1f} s, ratio {a / b:.2f}", flush=True)


def memory(loop: Loop) -> float:
    """GB of the compiled step: arguments, results and temporary memory."""
    inputs = loop.feed(loop.phases["clusters"], 0, REFRESH, loop.target_values, REFRESH)
    lowered = loop.updates["clusters"].lower(loop.state, *inputs, loop.key)
    memory_use = lowered.compile().memory_analysis()
    return (memory_use.temp_size_in_bytes + memory_use.argument_size_in_bytes + memory_use.output_size_in_bytes) / 1e9


def main() -> None:
    """Prints both comparisons and the memory."""
    parser = argparse.ArgumentParser("python -m benchmarks.crossmodal_speed")
    for name, default in (
        ("rows", 20_000),
        ("width", 100),
        ("clusters", 8),
        ("epochs", 500),
        ("timed", 10),
        ("seeds", 10),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    dataset = planted(args.rows, width=args.width, num_clusters=args.clusters)
    one = ours(dataset, args.clusters)
    views = [dataset.features["view0"], dataset.features["view1"]]
    from benchmarks.torch_dmim import Trainer

    compare({"ours": one, "PyTorch": Trainer(views, args.clusters)}, args.timed, args.epochs, WALL)
    print(f"memory of a step: {memory(one):.2f} GB   promised: at most {MEMORY}", flush=True)
    if args.seeds > 1:
        several = ours(dataset, args.clusters, args.seeds)
        compare({f"{args.seeds} seeds": several, "one": one}, REFRESH, args.epochs, SEEDS)


if __name__ == "__main__":
    main()
