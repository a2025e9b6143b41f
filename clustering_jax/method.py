"""The contract between a method (a module of `methods/`) and the training loop (`training/loop.py`).

A method is data and pure functions, collected in a `Method`. The loop knows nothing else about it. In plain words:

- An objective is a loss together with the optimiser that minimises it.
- A phase is a part of training: a number of steps on one data stream with the same objectives. A method trains in one
  phase or in several phases, one after the other. An example is pretraining followed by fine-tuning.
- Targets are extra arrays with one entry for each row of the data. A phase computes them when it starts, and they join
  every batch of that phase. Examples are pseudo-labels and nearest neighbours. A phase with a `Refresh` computes them
  again every few steps, from the present ones if it likes. (Several phases in a row that share their objectives do the
  same where the present targets do not matter: so DMIM draws its labels anew.) Targets may be computed on a device, but
  they end on the host, so that a checkpoint holds them and a resumed run goes on with the same ones. The loop copies
  them to the devices once.
- ``infer`` is a function that the loop passes to callbacks such as `Phase.targets` and `Method.criterion`. It applies a
  function of one batch to the whole training data: ``infer(function, variables)`` calls
  ``function(variables, batch)`` batch by batch and returns the results, joined, as arrays [n, ...].

Two dictionaries are passed around:

- ``variables`` is Flax's dictionary of collections, ``{"params": ..., "batch_stats": ...}``.
- A batch maps names to arrays whose first dimension is the example. It has the features of its rows (for images
  ``{"image": uint8 [n, h, w, c]}``), their row numbers in the data set (``"index"``, int32 [n]), and the targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import optax

Variables = Mapping[str, Any]
Batch = Mapping[str, Any]


class Spec(NamedTuple):
    """What a method needs to know about a run before it is built.

    Args:
      num_clusters: number of clusters to find.
      batch_size: global batch size in rows, over all devices.
      epochs: number of epochs from the config.
      steps_per_epoch: number of steps in an epoch of each data stream, by the stream's name. The stream "train" always
        exists.
    """

    num_clusters: int
    batch_size: int
    epochs: int
    steps_per_epoch: Mapping[str, int]


class Objective(NamedTuple):
    """A loss and the optimiser that minimises it.

    Args:
      loss: ``(variables, batch, key) -> (scalar, (updated collections, {name: term}))``. The terms are logged. `key`
        depends only on the seed and the epoch. Fold ``batch["index"]`` into it for noise that must not depend on which
        rows share a batch.
      tx: optimiser. Objectives that hold the SAME object share one optimiser state, also across phases.
    """

    loss: Callable
    tx: optax.GradientTransformation


class Refresh(NamedTuple):
    """How a phase computes its targets again.

    Args:
      every: steps between two computations, counted from the start of the phase.
      update: ``(key, variables, infer, targets) -> {name: array [n, ...]}``, as `Phase.targets` but with the present
        targets. None ends the phase at this step. All processes must then decide alike, so the decision must be a
        function of what `infer` returns.
    """

    every: int
    update: Callable


class Phase(NamedTuple):
    """A part of training: `num_steps` steps on one data stream with the same objectives.

    Args:
      name: name of the phase, for the log.
      num_steps: number of batches.
      objectives: objectives to minimise. On each batch every objective makes one update, in this order.
      targets: ``(key, variables, infer) -> {name: array [n, ...]}``, or None. It is called on the host, when the phase
        starts. The rows of the arrays that belong to a batch join it under their names.
        ``infer(function, variables)`` applies ``function(variables, batch)`` to all rows of the stream "train".
      stream: name of the data stream.
      whole: if true, every batch is the whole stream, with the rows in order.
      partners: name of a target that holds row numbers, int [n, m], or "". In every epoch each row draws one of its m
        partners. The partner's features join the batch under the name "FEATURE_partner". This needs the data to be
        resident on the devices.
      refresh: how the targets are computed again during the phase, or None.
    """

    name: str
    num_steps: int
    objectives: tuple[Objective, ...]
    targets: Callable | None = None
    stream: str = "train"
    whole: bool = False
    partners: str = ""
    refresh: Refresh | None = None


class Report(NamedTuple):
    """What a method adds to the results of a finished run.

    Args:
      baselines: clusters of the scored rows, int [n], from simpler methods, by the name of the simpler method.
      names: words that describe each cluster, the most characteristic first.
    """

    baselines: Mapping[str, np.ndarray]
    names: list[list[str]]


class Method(NamedTuple):
    """A method that is ready to train.

    Args:
      init: ``(key, batch) -> variables``.
      phases: phases of training, in order.
      embed: ``(variables, batch) -> [n, d]`` features.
      predict: ``(variables, batch) -> [n, k]`` soft assignments, each row on the simplex.
      load: ``(path, variables) -> variables`` with the weights that the authors released, or None.
      criterion: ``(key, variables, infer) -> float``, computed without labels. Of several seeds the run keeps the one
        with the smallest value.
      consensus: whether the criterion is the negative of a mutual information in nats. If so, the run
        also counts the mutual information with the clusters of the other seeds when it compares the seeds.
      prepare: ``(key, dataset, cache) -> Dataset``. It is called once, on the host, before training, and computes
        features from features. `cache` is a directory for results that take long to compute.
      report: ``(key, prepared dataset, its clusters int [n], scored dataset) -> Report``.
      avoid_scan_on_cpu: do not run several steps in one compiled loop (such as `jax.lax.scan`) on CPU. Set it for
        networks with convolutions: XLA's CPU backend runs them 36 times slower inside such a loop.
    """

    init: Callable
    phases: tuple[Phase, ...]
    embed: Callable
    predict: Callable
    load: Callable | None = None
    criterion: Callable | None = None
    consensus: bool = False
    prepare: Callable | None = None
    report: Callable | None = None
    avoid_scan_on_cpu: bool = False
