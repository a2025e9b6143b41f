"""The contract between a method (one file of `methods/`) and the loop (`train.py`).

Everything is data or a pure function. `variables` is Flax's dictionary of collections, ``{"params": ...,
"batch_stats": ...}``. A batch is a dictionary of arrays whose first dimension is the example: the features of its rows
(for images ``{"image": uint8 [n, h, w, c]}``), ``"index"``, the int32 [n] row numbers in the data set, and what the
phase's `targets` made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import optax

Variables = Mapping[str, Any]
Batch = Mapping[str, Any]


class Spec(NamedTuple):
    """What a method needs to know of a run before it is built.

    num_clusters: clusters to find. batch_size: global, over all devices. epochs: as configured.
    steps_per_epoch: of each data stream by name; ``"train"`` is always there.
    """

    num_clusters: int
    batch_size: int
    epochs: int
    steps_per_epoch: Mapping[str, int]


class Objective(NamedTuple):
    """A loss and the optimiser that follows it.

    loss: ``(variables, batch, key) -> (scalar, (changed collections, {name: term}))``; `key` depends on the seed and
    the epoch alone, so noise that must not depend on the batch's composition folds in ``batch["index"]``.
    tx: objectives that hold the SAME transformation object share one optimiser state, across phases too.
    """

    loss: Callable
    tx: optax.GradientTransformation


class Phase(NamedTuple):
    """`num_steps` steps on one data stream; the objectives are played in turn on each batch.

    targets: host side, once as the phase starts: ``(key, variables, infer) -> {name: array [n, ...]}``; its rows
    join the batches. ``infer(function, variables)`` is ``function(variables, batch)`` over all rows of the train
    stream, joined.
    whole: each batch is the whole stream, rows in order.
    partners: name of a target of row numbers, int [n, m]. Each row draws one of its m partners anew in every epoch, and
      the partner's features join the batch as "FEATURE_partner". The data must be resident on the devices.
    """

    name: str
    num_steps: int
    objectives: tuple[Objective, ...]
    targets: Callable | None = None
    stream: str = "train"
    whole: bool = False
    partners: str = ""


class Report(NamedTuple):
    """What a method tells of a finished run besides its assignments.

    baselines: by name, the clusters int [n] that something simpler finds in the scored rows.
    names: words for each cluster, the most characteristic first.
    """

    baselines: Mapping[str, np.ndarray]
    names: list[list[str]]


class Method(NamedTuple):
    """A system ready to train.

    init: ``(key, batch) -> variables``. embed: ``(variables, batch) -> [n, d]`` features.
    predict: ``(variables, batch) -> [n, k]`` soft assignments, rows on the simplex.
    load: ``(path, variables) -> variables``, the authors' released weights, or None.
    criterion: ``(key, variables, infer) -> float`` without labels, the least is best: which of several seeds to keep.
    consensus: the criterion is minus an information in nats, to which that shared with the other seeds' clusters adds.
    prepare: ``(key, dataset, cache) -> Dataset``, host side, once before training: features made of features; what
      takes long is kept in the directory `cache`.
    report: ``(key, prepared dataset, its clusters int [n], scored dataset) -> Report``.
    convolves: XLA's CPU backend slows convolutions inside a scan 36 times: the loop then steps one by one there.
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
    convolves: bool = False
