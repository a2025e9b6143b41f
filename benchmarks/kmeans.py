"""k-means with 100 restarts on 10,000 x 128 rows and k = 10: this package against scikit-learn.

    python -m benchmarks.kmeans     (half a minute)

The clusters overlap, so that a restart needs about twenty iterations. The sides take turns. Each side runs `ROUNDS`
times, and its fastest round counts. The compilation time of this package is reported separately. Both sides use float32
and the same tolerance. scikit-learn runs with all threads and with one thread, and the faster result counts, because on
a busy machine its threads wait for each other.
"""

from __future__ import annotations

import time
from functools import partial

import jax
import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from clustering_jax.kmeans import kmeans

ROWS, COLUMNS, CLUSTERS, RESTARTS, ROUNDS = 10_000, 128, 10, 100, 2
# Distance between centers in standard deviations of a cluster, along one axis.
SPREAD = 0.3


def overlapping(seed: int = 0) -> np.ndarray:
    """Float32 rows of overlapping clusters."""
    rng = np.random.default_rng(seed)
    centers = SPREAD * rng.normal(size=(CLUSTERS, COLUMNS))
    noise = rng.normal(size=(ROWS, COLUMNS))
    return (centers[rng.integers(CLUSTERS, size=ROWS)] + noise).astype(np.float32)


def ours(x: np.ndarray) -> tuple[float, int]:
    """Inertia and iterations of our best restart."""
    result = kmeans(jax.random.key(0), x, CLUSTERS, restarts=RESTARTS)
    return float(result.inertia), int(result.iterations)


def theirs(x: np.ndarray, threads: int | None) -> tuple[float, int]:
    """Inertia and iterations of scikit-learn's best restart."""
    with threadpool_limits(threads):
        result = KMeans(CLUSTERS, n_init=RESTARTS, random_state=0).fit(x)
    return float(result.inertia_), int(result.n_iter_)


SIDES = {"ours": ours, "scikit-learn": partial(theirs, threads=None), "on one thread": partial(theirs, threads=1)}


def main() -> None:
    """Prints the seconds, inertia and iterations of the best restart for all sides, and the ratio."""
    x = overlapping()
    compiled, _ = timed(ours, x)
    rounds = [{name: timed(side, x) for name, side in SIDES.items()} for _ in range(ROUNDS)]
    best = {name: min(seconds[name] for seconds in rounds) for name in SIDES}
    print(f"{'':16}{'seconds':>10}{'inertia':>14}{'iterations':>12}")
    for name, (seconds, (inertia, iterations)) in best.items():
        print(f"{name:16}{seconds:10.2f}{inertia:14.1f}{iterations:12}")
    mine, *peers = (seconds for seconds, _ in best.values())
    print(f"{min(peers) / mine:.2f} times as fast; first call with compilation {compiled:.1f} s")


def timed(function, x: np.ndarray) -> tuple[float, tuple[float, int]]:
    """Seconds of a call, and its result."""
    began = time.perf_counter()
    result = function(x)
    return time.perf_counter() - began, result


if __name__ == "__main__":
    main()
