"""The content of a report without a run: images, embeddings or views with artificial assignments."""

from pathlib import Path

import numpy as np

from clustering_jax.data.base import Dataset
from clustering_jax.data.images.folder import digits, synthetic
from clustering_jax.report.assigned import Assigned
from clustering_jax.report.content import Content, sample

EVIL = "<script>alert(1)</script>.png"
SCORES = {"acc": 0.9, "nmi": 0.8, "ari": 0.7, "purity": 0.9, "ami": 0.8, "fmi": 0.7}
PLAIN = {"occupied": 9, "entropy": 2.1, "confidence": 0.8, "smallest": 0, "largest": 80}


def datasets(kind, n=400):
    """`n` rows of a kind: "digits", "colour", "large", "embeddings" or "views". The first id contains markup."""
    made = {
        "digits": digits,
        "colour": lambda: synthetic(n=n, size=32),
        "large": lambda: synthetic(n=n, size=96),
        "embeddings": lambda: _rows(n, ["image"]),
        "views": lambda: _rows(n, ["view0", "view1"]),
    }[kind]()
    features = {name: rows[:n] for name, rows in made.features.items()}
    return made._replace(features=features, ids=[EVIL, *made.ids[1:n]], labels=made.labels[:n])


def _rows(n, names):
    rng = np.random.default_rng(0)
    features = {name: rng.normal(size=(n, 6)).astype(np.float32) for name in names}
    return Dataset(features, [str(i) for i in range(n)], np.arange(n) % 10, "rows", "all")


def log(steps=40):
    """metrics.jsonl of two phases with an evaluation every ten steps. One term is not finite in one line."""
    lines = []
    for step in range(1, steps + 1):
        phase = {"phase": "one" if step < 20 else "two", "loss": 3 / step, "instance": 1 / step, "occupied": 9.0}
        lines.append({"step": step, **phase, "images_per_second": 100.0, "entropy": None if step == 5 else 2.0})
        lines[-1]["instance"] = None if step == 7 else lines[-1]["instance"]
        if step % 10 == 0:
            lines.append({"step": step, **{f"eval/{k}": v for k, v in {**PLAIN, **SCORES}.items()}})
    return lines


def columns(clusters):
    """Further columns of assignments.csv: three typical rows of each cluster, and duplicates of every tenth row."""
    n = len(clusters)
    typical, group = np.full(n, np.nan), np.where(np.arange(n) % 10 < 2, np.arange(n) // 10, np.nan)
    for cluster in np.unique(clusters):
        own = np.flatnonzero(clusters == cluster)[-3:]
        typical[own] = np.arange(len(own)) + 1
    return {
        "second": (clusters + 1.0) % 9,
        "second_probability": np.full(n, 0.05),
        "outlier": (np.arange(n) + 1) / n,
        "duplicate_group": group,
        "typical": typical,
    }


def content(kind="digits", k=10, **changes):
    """A complete Content. The last cluster is empty, and the first row is the most confident of the first cluster."""
    dataset = datasets(kind)
    rng, n = np.random.default_rng(0), dataset.num_examples
    clusters = np.where(rng.random(n) < 0.8, dataset.labels % (k - 1), rng.integers(0, k - 1, n))
    confidence = rng.uniform(1 / k, 0.99, n).astype(np.float32)
    clusters[0], confidence[0] = 0, 1.0
    embedding = np.eye(10)[dataset.labels] @ rng.normal(size=(10, 8)) + rng.normal(0, 0.3, (n, 8))
    result = {
        "method": "cc",
        "scores": {**PLAIN, **SCORES},
        "baselines": [{"name": "k-means on pixels", **dict.fromkeys(SCORES, 0.5)}],
        "protocol": {"trained_on": "a, train", "scored_on": "b", "labels": "for scoring alone", "scored_at": "end"},
        "seed": 0,
        "versions": {"jax": "1"},
        "wall_time_seconds": 3725.0,
    }
    config = {"method": "cc", "num_clusters": k, "data": {"path": f"/data/{EVIL}"}, "run": {"log_every": 1}}
    images = dataset.features.get("image") if dataset else None
    whole = Content(
        name=f"run {EVIL}",
        config=config,
        finished=True,
        result=result,
        log=log(),
        assigned=Assigned(dataset.ids, clusters, confidence, k, columns(clusters)),
        dataset=dataset,
        rows=sample(n),
        embedding=embedding[sample(n)],
        pictures=images if getattr(images, "ndim", 0) == 4 else None,
        names=[],
        locked=[],
        folder=None,
        workdir=Path("/nowhere"),
        curve=None,
        notes=[],
    )
    return whole._replace(**changes)


def large(n=50_000, k=20):
    """A run of many rows without pictures."""
    rng = np.random.default_rng(0)
    small = content("embeddings", k=k)
    clusters = rng.integers(0, k, n)
    ids = [f"folder/image_{i:06}.jpg" for i in range(n)]
    assigned = small.assigned._replace(
        ids=ids, clusters=clusters, confidence=rng.random(n).astype(np.float32), columns=columns(clusters)
    )
    embedding = rng.normal(size=(k, 8))[clusters] * 3 + rng.normal(size=(n, 8))
    return small._replace(assigned=assigned, dataset=None, rows=np.arange(n), embedding=embedding)
