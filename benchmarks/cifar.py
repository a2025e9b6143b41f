"""Trains CC on the 10,000 test images of CIFAR-10 at 32 px with three seeds: the results in docs/results.md.

    python -m benchmarks.cifar --tfds_dir=DIR [--seeds=3 --epochs=20 --output=docs/cifar10]

The runs are trained and scored on the same images; labels are used only for scores. The settings follow the authors'
code: ResNet18 with the 7x7 stem, batch 128, strength .5. After each epoch two predictions of the same training are
scored: one with the weights of the last step, as published, and one with the moving average of the weights
(`average_decay`). Epochs 10, 15 and 20 also score the average's mean over ten crops of each image (`ten_crop`). The
script writes OUTPUT.json and, if matplotlib is installed, OUTPUT.png.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from clustering_jax import metrics
from clustering_jax.data import load
from clustering_jax.files import write_json
from clustering_jax.method import Spec
from clustering_jax.methods.cc import method as cc
from clustering_jax.training.checkpoint import Store
from clustering_jax.training.evaluate import make_infer
from clustering_jax.training.log import MetricsLog
from clustering_jax.training.loop import Schedule, fit

BATCH = 128
DECAY = 0.995
TEN = "average, ten crops"
# Ten crops take ten times as long, so they are scored only at some epochs.
TEN_EPOCHS = (10, 15, 20)
# The predictions that are scored, and their colours.
CURVES = {"last step": "#E69F00", "average": "#0072B2", TEN: "#009E73"}
# The authors' code on the same images and settings, seed 0: epoch -> (ACC, NMI).
AUTHORS = {5: (0.301, 0.174), 10: (0.302, 0.179), 15: (0.281, 0.174), 20: (0.306, 0.178)}


def train(dataset, seed: int, epochs: int, directory: Path) -> dict[str, list[dict[str, float]]]:
    """Scores both predictions after every epoch, and returns the mean loss terms of the epochs."""
    steps = dataset.num_examples // BATCH
    spec = Spec(10, BATCH, epochs, {"train": steps})
    build = {"backbone": "resnet18", "image_size": 32}
    method, last = cc.build(spec, **build, average_decay=DECAY), cc.build(spec, **build)
    ten = cc.build(spec, **build, average_decay=DECAY, ten_crop=True)
    methods = dict(zip(CURVES, (last, method, ten), strict=True))
    infers = {name: make_infer(m.predict, BATCH) for name, m in methods.items()}
    curves: dict[str, list] = {name: [] for name in infers}

    def evaluate(variables) -> dict[str, float]:
        epoch = len(curves["average"]) + 1
        due = [name for name in infers if name != TEN or epoch in TEN_EPOCHS]
        for name in due:
            curves[name].append(metrics.scores(dataset.labels, infers[name](variables, dataset.features).argmax(1)))
        return {f"{name} {k}": curves[name][-1][k] for name in due for k in ("acc", "nmi")}

    store, log = Store(directory / "checkpoints"), directory / "metrics.jsonl"
    fit(
        method,
        {"train": dataset},
        jax.jit(method.init)(jax.random.key(seed), {k: v[:2] for k, v in dataset.features.items()}),
        seed_list=(seed,),
        batch_size=BATCH,
        schedule=Schedule(log_every=steps, evaluate_every=steps),
        store=store,
        open_log=lambda step, total: MetricsLog(log, step, total, BATCH),
        meta={},
        infer=None,
        evaluate=evaluate,
    )
    store.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    curves["terms"] = [line for line in lines if "loss" in line]
    return curves


def report(runs: list[dict]) -> None:
    """Formats the mean and the standard deviation over the seeds, next to the one seed of the authors."""
    print(f"{'epoch':>5}" + "".join(f"{name + ' ACC / NMI':>32}" for name in CURVES) + "   authors' code, seed 0")
    for epoch, theirs in AUTHORS.items():
        if epoch <= len(runs[0]["average"]):
            cells = [_cell([r[name][i] for r in runs]) for name in CURVES if (i := _place(name, epoch)) is not None]
            cells += [""] * (len(CURVES) - len(cells))
            print(f"{epoch:5}" + "".join(f"{cell:>32}" for cell in cells) + f"   {theirs[0]:.3f} / {theirs[1]:.3f}")
    terms = runs[0]["terms"]
    for epoch in (1, 5, 20):
        if epoch <= len(terms):
            line = terms[epoch - 1]
            print(f"loss of epoch {epoch}, seed 0: {line['instance']:.3f} / {line['cluster'] + line['imbalance']:.3f}")


def _place(name: str, epoch: int) -> int | None:
    """The position of an epoch in a curve, or None."""
    if name != TEN:
        return epoch - 1
    return TEN_EPOCHS.index(epoch) if epoch in TEN_EPOCHS else None


def _cell(scores: list[dict[str, float]]) -> str:
    parts = [[s[key] for s in scores] for key in ("acc", "nmi")]
    return " / ".join(f"{np.mean(v):.3f} +- {np.std(v):.3f}" for v in parts)


def draw(runs: list[dict], path: Path) -> None:
    """Draws ACC and NMI over the epochs: the mean and the range over the seeds."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, key, place in zip(axes, ("acc", "nmi"), (0, 1), strict=True):
        for name, colour in CURVES.items():
            curves = np.array([[scores[key] for scores in run[name]] for run in runs])
            epochs = TEN_EPOCHS[: curves.shape[1]] if name == TEN else range(1, curves.shape[1] + 1)
            axis.plot(epochs, curves.mean(0), color=colour, label=f"ours, {name}: mean of {len(runs)} seeds, range")
            axis.fill_between(epochs, curves.min(0), curves.max(0), color=colour, alpha=0.2, linewidth=0)
        axis.plot(list(AUTHORS), [v[place] for v in AUTHORS.values()], "kx", label="authors' code, one seed")
        axis.set(xlabel="epoch", ylabel=key.upper(), xticks=[0, *AUTHORS])
        axis.grid(alpha=0.3)
    axes[1].legend(loc="lower right", fontsize=8)
    figure.suptitle("CC on the CIFAR-10 test images, 32 px, ResNet18", fontsize=11)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Reads the arguments, trains, prints and writes."""
    parser = argparse.ArgumentParser("python -m benchmarks.cifar")
    parser.add_argument("--tfds_dir", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--output", default="docs/cifar10")
    arguments = parser.parse_args()
    dataset = load("tfds", name="cifar10", splits="test", tfds_dir=arguments.tfds_dir)
    runs, output = [], Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as directory:
            began = time.monotonic()
            runs.append(train(dataset, seed, arguments.epochs, Path(directory)))
            print(f"seed {seed}: {time.monotonic() - began:.0f} s", flush=True)
        write_json(output.with_suffix(".json"), runs)
    report(runs)
    draw(runs, output.with_suffix(".png"))


if __name__ == "__main__":
    main()
