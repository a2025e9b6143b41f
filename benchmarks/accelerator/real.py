"""A real run on CIFAR-10: CC, SCAN and self-labelling with ``configs/cc_cifar10_fast.py``, until the time limit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from clustering_jax import metrics
from clustering_jax.inference.predictor import Predictor
from clustering_jax.kmeans.neighbours import nearest_neighbours

if TYPE_CHECKING:
    from benchmarks.accelerator.parts import Context

SECONDS = 330
CONFIG = """import importlib.util

from ml_collections import ConfigDict


def get_config(variant=""):
    spec = importlib.util.spec_from_file_location("fast", {path!r})
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(variant)
    config.data = ConfigDict(dict(source="arrays", path={data!r}, image_key="image", label_key="label"))
    return config
"""


def cifar10(context: Context) -> None:
    """Trains and scores. If an earlier call was stopped, the training resumes there."""
    root = Path(__file__).parents[2]
    data, config, workdir = (context.output / name for name in ("images.npz", "config.py", "cifar10"))
    np.savez(data, image=context.images, label=context.labels)
    config.write_text(CONFIG.format(path=str(root / "configs" / "cc_cifar10_fast.py"), data=str(data)))
    command = [sys.executable, "-m", "clustering_jax.main", f"--config={config}", f"--workdir={workdir}"]
    if context.toy:
        command += ["--config.epochs=1", "--config.batch_size=50", "--config.model.width=4"]
        command += ["--config.model.scan_epochs=1", "--config.model.selflabel_epochs=1"]
    process = subprocess.Popen(command, cwd=root)
    try:
        process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
    for line in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()):
        if "eval/acc" in line:
            context.write(step=line["step"], acc=line["eval/acc"], nmi=line["eval/nmi"], occupied=line["eval/occupied"])
    context.write(**scores(Predictor.restore(workdir), context))


def scores(predictor: Predictor, context: Context) -> dict[str, float]:
    """ACC and NMI of the newest checkpoint, and the accuracy of a vote of 20 neighbours in its features."""
    clusters = predictor.predict({"image": context.images})
    features = jnp.asarray(predictor.embed({"image": context.images}))
    near = np.asarray(nearest_neighbours(features, 20))
    votes = [Counter(context.labels[rows].tolist()).most_common(1)[0][0] for rows in near]
    values = metrics.scores(context.labels, clusters)
    return {"acc": values["acc"], "nmi": values["nmi"], "knn_accuracy": float(np.mean(votes == context.labels))}
