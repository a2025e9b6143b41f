"""Small data in views, a narrow CMMC for them, and training in a directory."""

import jax
import numpy as np

from clustering_jax.data.base import Dataset
from clustering_jax.method import Spec
from clustering_jax.methods.cmmc import method as cmmc
from clustering_jax.training import loop
from clustering_jax.training import seeds as side_by_side
from clustering_jax.training.checkpoint import Store
from clustering_jax.training.evaluate import make_infer
from clustering_jax.training.log import MetricsLog

WIDTHS, CLUSTERS, BATCH = (6, 5, 4), 3, 8
SMALL = {
    "hidden": (7, 8),
    "latent_dim": 6,
    "feature_dim": 5,
    "reconstruction_epochs": 1,
    "matching_steps": 5,
    "kmeans_restarts": 2,
}


def features(n=40, views=3, missing=False, seed=0):
    """Views with clusters. If views are missing, their rows are zeros, and every row has at least one view."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLUSTERS, size=n)
    rows = [4 * rng.normal(size=(CLUSTERS, d))[labels] + rng.normal(size=(n, d)) for d in WIDTHS[:views]]
    batch = {f"view{v}": x.astype(np.float32) for v, x in enumerate(rows)}
    if missing:
        mask = rng.random((n, views)) < 0.6
        mask[np.arange(n), rng.integers(views, size=n)] = True
        batch = {name: np.where(mask[:, [v]], x, 0) for v, (name, x) in enumerate(batch.items())} | {"mask": mask}
    return batch


def dataset(**options):
    found = features(**options)
    n = len(found["view0"])
    return Dataset(found, [str(i) for i in range(n)], None, "views", "all")


def build(n=40, **settings):
    """An epoch has five steps of eight rows. With `SMALL`, every stage has five steps."""
    return cmmc.build(Spec(CLUSTERS, BATCH, 1, {"train": n // BATCH}), **{**SMALL, **settings})


def run(directory, method, data, seeds=(0,)):
    """Returns the final state, and the targets of the stage from the newest checkpoint."""
    directory.mkdir(exist_ok=True)
    first = {k: v[:2] for k, v in data.features.items()}
    store = Store(directory / "checkpoints")
    try:
        state, _ = loop.fit(
            method,
            {"train": data},
            side_by_side.init_variables(method, seeds, first),
            seed_list=seeds,
            batch_size=BATCH,
            schedule=loop.Schedule(log_every=1),
            store=store,
            open_log=lambda step, total: MetricsLog(directory / "metrics.jsonl", step, total, BATCH),
            meta={},
            infer=lambda function, variables: make_infer(function, BATCH)(variables, data.features),
            evaluate=lambda variables: {},
        )
        targets = store.restore(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state))[2]
    finally:
        store.close()
    return state, targets
