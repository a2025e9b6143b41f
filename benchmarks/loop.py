"""Times the steps of the training loop without data loading, checkpoints and logs."""

from __future__ import annotations

import time

import jax
import numpy as np

from clustering_jax.data.base import Dataset
from clustering_jax.method import Method
from clustering_jax.parallel import data_mesh, replicated
from clustering_jax.training.batches import Feed
from clustering_jax.training.evaluate import make_infer
from clustering_jax.training.loop import LOOP_STEPS
from clustering_jax.training.seeds import each_seed, init_variables, keys_of
from clustering_jax.training.update import init_state, make_update, optimizers


class Loop:
    """A training loop for one seed or for several seeds side by side. The first call compiles."""

    def __init__(self, method: Method, dataset: Dataset, batch: int, seeds: int = 1):
        self.dataset, self.batch, self.seeds, chosen = dataset, batch, seeds, tuple(range(seeds))
        self.phases = {phase.name: phase for phase in reversed(method.phases)}
        mesh = data_mesh(batch)
        variables = init_variables(method, chosen, {v: x[:2] for v, x in dataset.features.items()})
        self.state = jax.device_put(init_state(method, variables, seeds), replicated(mesh))
        self.key = jax.device_put(keys_of(chosen), replicated(mesh))
        self.feed = Feed({"train": dataset}, seed_list=chosen, batch_size=batch, mesh=mesh, limit=4 << 30)
        txs = optimizers(method)
        self.updates = {name: make_update(p, txs, mesh, self.feed.resident, seeds) for name, p in self.phases.items()}
        self.infers: dict = {}
        self.target_values: dict[str, np.ndarray] = {}

    def steps(self, name: str, count: int) -> float:
        """Seconds of `count` steps of a phase, grouped into calls as in the training loop."""
        began, phase = time.perf_counter(), self.phases[name]
        targets = self.target_values if phase.targets else {}
        for first in range(0, count, LOOP_STEPS):
            inputs = self.feed(phase, first, min(LOOP_STEPS, count - first), targets, min(LOOP_STEPS, count))
            self.state, terms = self.updates[name](self.state, *inputs, self.key)
        jax.block_until_ready(terms)
        return time.perf_counter() - began

    def targets(self, name: str) -> float:
        """Seconds to compute the targets of a phase for every seed, one after the other as in the training loop."""
        began = time.perf_counter()
        everyone = each_seed(self.key, self.state.variables, self.seeds)
        each = [self.phases[name].targets(key, variables, self._infer) for key, variables in everyone]
        self.target_values = (
            each[0] if self.seeds == 1 else {name: np.stack([e[name] for e in each]) for name in each[0]}
        )
        return time.perf_counter() - began

    def _infer(self, function, variables):
        if function not in self.infers:
            self.infers[function] = make_infer(function, self.batch)
        return self.infers[function](variables, self.dataset.features)
