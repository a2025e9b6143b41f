"""The demo over five seeds, beside k-means on the pixels with the same seeds.

    python -m benchmarks.digits [--seeds=5]

Trained and scored on scikit-learn's 1,797 digits, at the last epoch; labels for scoring alone.
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
    """Scores of CC and of k-means (10 restarts), a dictionary a seed."""
    spec = importlib.util.spec_from_file_location("cc_digits", CONFIG)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config, data = module.get_config().to_dict(), digits()
    pixels = data.features["image"].reshape(data.num_examples, -1).astype(np.float32)
    found: dict[str, list] = {"CC": [], "k-means on pixels": []}
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as directory:
            found["CC"].append(run.train({**config, "seed": seed}, Path(directory) / "run")["scores"])
        labels = KMeans(10, n_init=10, random_state=seed).fit_predict(pixels)
        found["k-means on pixels"].append(metrics.scores(data.labels, labels))
    return found


def main() -> None:
    """Prints mean and standard deviation over the seeds."""
    parser = argparse.ArgumentParser("python -m benchmarks.digits")
    parser.add_argument("--seeds", type=int, default=5)
    found = scores(parser.parse_args().seeds)
    print(f"{'':18}" + "".join(f"{name.upper():>16}" for name in TABLE))
    for method, runs in found.items():
        cells = [[s[name] for s in runs] for name in TABLE]
        print(f"{method:18}" + "".join(f"{np.mean(c):10.3f} +-{np.std(c):.3f}" for c in cells))
    print("ACC of CC by seed: " + ", ".join(f"{s['acc']:.3f}" for s in found["CC"]))


if __name__ == "__main__":
    main()
