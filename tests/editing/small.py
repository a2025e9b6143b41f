"""A finished run of eighty rows in four clusters, of which cluster 2 has two parts."""

import numpy as np

from clustering_jax import run
from clustering_jax.settings import EMBEDDINGS, own_method
from tests.paths import ROOT

N, K = 80, 4


def rows(n=N, seed=0):
    """``(embeddings [n, 6], part [n])``: part 4 is the second part of cluster 2."""
    rng = np.random.default_rng(seed)
    part = np.arange(n) % 5
    directions = np.eye(5, 6)
    directions[4] = directions[2]
    directions[[2, 4], 5] = 0.6, -0.6
    return (directions[part] + rng.normal(0, 0.04, (n, 6))).astype(np.float32), part


def trained(directory, **changes):
    """The workdir of such a run, and the parts of its rows."""
    image, part = rows()
    np.savez(directory / "rows.npz", image=image, label=part)
    config = own_method(
        f"{ROOT / 'tests' / 'editing' / 'nearest_centre.py'}:build",
        num_clusters=K,
        batch_size=40,
        epochs=1,
        data={**EMBEDDINGS, "path": str(directory / "rows.npz"), "split": "all", "label_key": "label"},
        optimizer={"learning_rate": 1e-4},
        **changes,
    ).to_dict()
    run.train(config, directory / "run", quiet=True, reported=False)
    return directory / "run", part
