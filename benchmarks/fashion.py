"""CC and the phases after it on Fashion-MNIST, next to k-means on the pixels.

    apt-get install dataset-fashion-mnist
    python -m benchmarks.fashion [--seeds=3 --rows=4000 --epochs=40 --refine=15 --output=docs/fashion.json]

The first `rows` training images at half their side, 14 pixels, by a ResNet-18 of width 16. CC is trained once for each
seed; the phases go on from where it, or the phase before, has ended. Trained and scored on the same images at the last
epoch. Labels are for scoring alone. Finished stages are kept in the JSON file, so the same command goes on with the
seeds that are missing.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from sklearn.cluster import KMeans

from clustering_jax import metrics
from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.files import read_json, write_json
from clustering_jax.inference.features import feature_scores
from clustering_jax.method import Method, Spec
from clustering_jax.methods import METHODS
from clustering_jax.training import seeds
from clustering_jax.training.checkpoint import Store
from clustering_jax.training.evaluate import make_infer
from clustering_jax.training.log import MetricsLog
from clustering_jax.training.loop import Schedule, fit

SOURCE = "/usr/share/datasets/fashion-mnist"
BATCH, CLASSES = 128, 10
MODEL = {"backbone": "resnet18", "stem": "small", "width": 16, "image_size": 14}
# What is trained, and where it starts from.
STAGES = {
    "CC": ("contrast", ""),
    "+ SCAN": ("scan", "CC"),
    "+ SCAN + self-labelling": ("selflabel", "+ SCAN"),
    "+ self-labelling": ("selflabel", "CC"),
    "+ boost": ("boost", "CC"),
}


def fashion(source: str, rows: int) -> Dataset:
    """The first training images, each pixel the mean of four."""
    images, labels = (
        np.frombuffer(gzip.decompress((Path(source) / f"train-{name}-ubyte.gz").read_bytes())[skipped:], np.uint8)
        for name, skipped in (("images-idx3", 16), ("labels-idx1", 8))
    )
    small = images.reshape(-1, 14, 2, 14, 2)[:rows].mean((2, 4)).round().astype(np.uint8)
    return Dataset({"image": small[..., None]}, row_ids(len(small)), labels[:rows].astype(np.int64), "fashion", "train")


def build(dataset: Dataset, epochs: int, refine: int) -> Method:
    """CC with all phases. Lengths, rates and thresholds are not those of the papers, and each cluster keeps labels."""
    lengths = {f"{name}_epochs": refine for name in ("scan", "selflabel", "boost")}
    return METHODS["cc"](
        Spec(CLASSES, BATCH, epochs, {"train": dataset.num_examples // BATCH}),
        **MODEL,
        **lengths,
        refine="scan,selflabel,boost",
        selflabel_threshold=0.95,
        boost_threshold=0.95,
        refine_share=0.3,
        refine_plain_statistics=True,
        augment={"kind": "natural", "crop_scale": (0.4, 1.0)},
        optimizer={"learning_rate": 1e-3, "schedule": "cosine"},
    )


def train(method: Method, name: str, dataset: Dataset, variables: Any, seed: int, infer: Callable) -> tuple[Any, float]:
    """The variables after a phase, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as directory:
        store = Store(Path(directory) / "checkpoints")
        try:
            state, seconds = fit(
                method._replace(phases=tuple(phase for phase in method.phases if phase.name == name)),
                {"train": dataset},
                variables,
                seed_list=(seed,),
                batch_size=BATCH,
                schedule=Schedule(),
                store=store,
                open_log=lambda step, total: MetricsLog(Path(directory) / "log", step, total, BATCH, quiet=True),
                meta={},
                infer=infer,
                evaluate=lambda _: {},
            )
        finally:
            store.close()
    return jax.device_get(state.variables), seconds


def run(dataset: Dataset, seed: int, epochs: int, refine: int, keep: Callable[[str, dict], None]) -> None:
    """Trains all stages of a seed; `keep` gets the scores of each stage."""
    method, compiled = build(dataset, epochs, refine), {}

    def infer(function: Callable, variables: Any) -> np.ndarray:
        apply = compiled.setdefault(function, make_infer(function, BATCH))
        return apply(variables, dataset.features)

    ends = {"": seeds.init_variables(method, (seed,), {"image": dataset.features["image"][:2]})}
    for stage, (name, before) in STAGES.items():
        ends[stage], seconds = train(method, name, dataset, ends[before], seed, infer)
        p, features = infer(method.predict, ends[stage]), infer(method.embed, ends[stage])
        scores = metrics.evaluate(p, dataset.labels) | feature_scores(method.embed, dataset, p.argmax(1), features)[0]
        keep(stage, {**scores, "seconds": seconds})


def by_kmeans(dataset: Dataset, seed: int) -> dict[str, float]:
    """Scores of k-means on the pixels, 10 restarts."""
    pixels = dataset.features["image"].reshape(dataset.num_examples, -1).astype(np.float32)
    return metrics.scores(dataset.labels, KMeans(CLASSES, n_init=10, random_state=seed).fit_predict(pixels))


def table(runs: dict[str, dict[str, dict]]) -> str:
    """Mean and standard deviation over the seeds that have a stage."""
    lines = ["| | seeds | ACC | NMI | ARI | 20-NN accuracy | seconds |", "|---|---|---|---|---|---|---|"]
    for stage in ("k-means on pixels", *STAGES):
        found = [run[stage] for run in runs.values() if stage in run]
        cells = [[scores[k] for scores in found if k in scores] for k in ("acc", "nmi", "ari", "knn_accuracy")]
        shown = [f"{np.mean(c):.3f}±{np.std(c):.3f}".replace("0.", ".") if c else "" for c in cells]
        seconds = [scores["seconds"] for scores in found if "seconds" in scores]
        if found:
            lines.append(f"| {stage} | {len(found)} | {' | '.join(shown)} | {np.mean(seconds or 0):.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Trains the seeds that the JSON file does not have, and prints the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.fashion")
    parser.add_argument("--source", default=SOURCE)
    parser.add_argument("--output", type=Path, default=Path("docs/fashion.json"))
    for name, value in (("seeds", 3), ("rows", 4000), ("epochs", 40), ("refine", 15)):
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()
    sizes = {name: getattr(arguments, name) for name in ("rows", "epochs", "refine")}
    dataset = fashion(arguments.source, arguments.rows)
    found = read_json(arguments.output) or {"settings": sizes, "runs": {}}
    if found["settings"] != sizes:
        parser.error(f"{arguments.output} holds runs of {found['settings']}: give another --output")
    for seed in range(arguments.seeds):
        scores = found["runs"].setdefault(str(seed), {})
        if set(STAGES) <= set(scores):
            continue

        def keep(stage: str, values: dict, scores: dict = scores, seed: int = seed) -> None:
            scores[stage] = values
            write_json(arguments.output, found)
            print(time.strftime("%H:%M:%S"), seed, stage, {k: round(v, 3) for k, v in values.items()}, flush=True)

        keep("k-means on pixels", by_kmeans(dataset, seed))
        run(dataset, seed, arguments.epochs, arguments.refine, keep)
    print(table(found["runs"]))


if __name__ == "__main__":
    main()
