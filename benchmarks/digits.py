"""The demo with five seeds, next to k-means on the pixels with the same seeds.

    python -m benchmarks.digits [--seeds=5]

Trained and scored on the 1,797 digits of scikit-learn at the last epoch. Labels are used only for scores.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans

from clustering_jax import metrics, run
from clustering_jax.data.images.folder import digits
from clustering_jax.inference.results import TABLE

CONFIG = Path(__file__).parents[1] / "configs" / "cc_digits.py"


def scores(seeds: int) -> dict[str, list[dict[str, float]]]:
    """Scores of CC and of k-means (10 restarts), one dictionary per seed."""
    spec = importlib.util.spec_from_file_location("cc_digits", CONFIG)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config, data = module.get_config().to_dict(), digits()
    pixels = data.features["image"].reshape(data.num_examples, -1).astype(np.float32)
    scores_of: dict[str, list] = {"CC": [], "k-means on pixels": []}
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as directory:
            scores_of["CC"].append(run.train({**config, "seed": seed}, Path(directory) / "run")["scores"])
        labels = KMeans(10, n_init=10, random_state=seed).fit_predict(pixels)
        scores_of["k-means on pixels"].append(metrics.scores(data.labels, labels))
    return scores_of


def main() -> None:
    """Prints mean and standard deviation over the seeds."""
    parser = argparse.ArgumentParser("python -m benchmarks.digits")
    parser.add_argument("--seeds", type=int, default=5)
    scores_of = scores(parser.parse_args().seeds)
    print(f"{'':18}" + "".join(f"{name.upper():>16}" for name in TABLE))
    for method, runs in scores_of.items():
        cells = [[s[name] for s in runs] for name in TABLE]
        print(f"{method:18}" + "".join(f"{np.mean(c):10.3f} +-{np.std(c):.3f}" for c in cells))
    print("ACC of CC by seed: " + ", ".join(f"{s['acc']:.3f}" for s in scores_of["CC"]))


if __name__ == "__main__":
    main()
