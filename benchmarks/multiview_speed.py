"""Speed of a whole CMMC run: this package against a PyTorch loop, and ten seeds against one.

    python -m benchmarks.multiview_speed --help

The generated data has the size of BDGP: 2,500 rows, views of 1,750 and 79 columns, 5 clusters, batch 256. Runs are not
trained to the end. The time of a run is the measured time of a step of each stage times the published number of steps
(200 and 10 epochs of 9 steps, then 50 on the whole set), plus the time for the pseudo-labels (k-means with 100 restarts
on each view). The sides take turns for `--rounds` rounds after a warm-up, and the fastest time of each part counts,
because other load can only slow a round. The compilation time of this package is reported separately, and is included
in the last column of the wall ratio.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.loop import Loop
from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.method import Spec
from clustering_jax.methods.cmmc import method as cmmc

if TYPE_CHECKING:
    from benchmarks.torch_cmmc import Trainer

# The project promises: a whole run takes at most half the time of PyTorch, and ten seeds take at most six times as long
# as one seed.
WALL, SEEDS = 0.5, 6.0


def generated(n: int, widths: list[int], k: int) -> Dataset:
    """Float32 views in [0, 1] with clusters."""
    rng = np.random.default_rng(0)
    labels = rng.integers(k, size=n)
    means = [rng.uniform(size=(k, d))[labels] for d in widths]
    views = {f"view{v}": np.clip(m + 0.2 * rng.normal(size=m.shape), 0, 1) for v, m in enumerate(means)}
    return Dataset({v: x.astype(np.float32) for v, x in views.items()}, row_ids(n), labels, "generated", "all")


def ours(
    dataset: Dataset, batch: int, k: int, epochs: tuple[int, int], matching: int, dtype: str = "float32", seeds: int = 1
) -> Loop:
    """The loop of this package, for one seed or for several seeds side by side."""
    spec = Spec(k, batch, epochs[1], {"train": dataset.num_examples // batch})
    method = cmmc.build(spec, reconstruction_epochs=epochs[0], matching_steps=matching, dtype=dtype)
    return Loop(method, dataset, batch, seeds)


def measured(sides: Mapping[str, Loop | Trainer], counts: Mapping[str, int], rounds: int) -> tuple[dict, dict]:
    """``({side: {part: seconds of one step, or of the targets}}, {side: extra seconds of the first calls})``."""
    times: dict = {name: {} for name in sides}
    first = dict.fromkeys(sides, 0.0)
    for part in ("reconstruct", "contrast", "targets", "match"):
        count = counts.get(part, 1)
        warm, *turns = ({name: call(s, part, count) for name, s in sides.items()} for _ in range(rounds + 1))
        for name in sides:
            best = min(turn[name] for turn in turns)
            times[name][part] = best / count
            first[name] += max(warm[name] - best, 0)
    return times, first


def call(side: Loop | Trainer, part: str, count: int) -> float:
    """Measures the seconds of a call."""
    if part != "targets":
        return side.steps(part, count)
    return side.targets("match") if isinstance(side, Loop) else side.targets()


def whole(times: Mapping[str, float], lengths: Mapping[str, int]) -> float:
    """Seconds of a whole run without compilation."""
    return sum(times[part] * lengths.get(part, 1) for part in times)


def report(sides: tuple[str, str], times: Mapping, first: Mapping, lengths: Mapping[str, int], promised: float) -> None:
    """Prints one row per part, then whole runs and the ratio of the first side to the second."""
    one, other = sides
    print(f"{'':24}{one:>12}{other:>12}{'ratio':>8}")
    for part in times[one]:
        a, b = times[one][part], times[other][part]
        print(f"{part + (', s' if part == 'targets' else ', ms/step'):24}", end="")
        scale = 1 if part == "targets" else 1e3
        print(f"{a * scale:12.2f}{b * scale:12.2f}{a / b:8.2f}")
    a, b = (whole(times[side], lengths) for side in sides)
    print(f"{'whole run, s':24}{a:12.1f}{b:12.1f}{a / b:8.2f}   promised: at most {promised}")
    print(f"{'first calls, s':24}{first[one]:12.1f}{first[other]:12.1f}")
    a, b = a + first[one], b + first[other]
    print(f"{'whole run with them, s':24}{a:12.1f}{b:12.1f}{a / b:8.2f}", flush=True)


def arguments() -> argparse.Namespace:
    """Defines and reads the command line."""
    parser = argparse.ArgumentParser(
        description="A whole CMMC run, ours against PyTorch, and several seeds against one."
    )
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--widths", type=int, nargs="+", default=[1750, 79], help="columns of each view")
    parser.add_argument("--clusters", type=int, default=5)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--epochs", type=int, nargs=2, default=(200, 10), help="of reconstruction, of contrast")
    parser.add_argument("--matching", type=int, default=50, help="steps of the third stage")
    parser.add_argument(
        "--timed", type=int, nargs=2, default=(16, 4), help="steps in a round: of the first stages, third"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="PyTorch's stays float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=10, help="side by side, 0 leaves them out")
    return parser.parse_args()


def main() -> None:
    """Prints both tables."""
    args = arguments()
    dataset = generated(args.rows, args.widths, args.clusters)
    epoch = args.rows // args.batch
    lengths = {"reconstruct": args.epochs[0] * epoch, "contrast": args.epochs[1] * epoch, "match": args.matching}
    counts = {"reconstruct": args.timed[0], "contrast": args.timed[0], "match": args.timed[1]}
    setting = (dataset, args.batch, args.clusters, tuple(args.epochs), args.matching, args.dtype)
    from benchmarks.torch_cmmc import Trainer

    peer = Trainer(list(dataset.features.values()), args.batch, args.clusters)
    one = ours(*setting)
    times, first = measured({"ours": one, "PyTorch": peer}, counts, args.rounds)
    report(("ours", "PyTorch"), times, first, lengths, WALL)
    if args.seeds > 1:
        name = f"{args.seeds} seeds"
        times, first = measured({name: ours(*setting, seeds=args.seeds), "one": one}, counts, args.rounds)
        report((name, "one"), times, first, lengths, SEEDS)


if __name__ == "__main__":
    main()
