"""Several seeds of one run, trained side by side: what each reached, and which is kept, without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import mutual_info_score

from clustering_jax.errors import UserError
from clustering_jax.method import Method
from clustering_jax.training.loop import keys_of, members


def seeds_of(config: Mapping[str, Any]) -> tuple[int, ...]:
    """``seed``, ``seed + 1``, ... as many as `num_seeds`."""
    return tuple(range(config["seed"], config["seed"] + config["num_seeds"]))


def check_numbers(config: Mapping[str, Any]) -> None:
    """Raises UserError for a seed below 0, or no seed at all."""
    if config["seed"] < 0:
        raise UserError(f"seed is {config['seed']}: choose 0 or more")
    if config["num_seeds"] < 1:
        raise UserError(f"num_seeds is {config['num_seeds']}: at least 1 run is needed")


def check(config: Mapping[str, Any], method: Method, resident: bool) -> None:
    """Raises UserError where several seeds can't train side by side."""
    count = config["num_seeds"]
    if count > 1 and method.avoid_scan_on_cpu:
        raise UserError(f"num_seeds is {count}, but convolutions don't train side by side: run one seed at a time")
    if count > 1 and method.criterion is None:
        raise UserError(f"num_seeds is {count}, but {config['method']} can't choose among seeds: run one at a time")
    if count > 1 and not resident:
        raise UserError(f"num_seeds is {count}, but the data exceeds run.resident_gib: raise it, or run one seed")


def over_seeds(function: Callable, seeds: int) -> Callable:
    """``function(variables, batch) -> [n, ...]`` for the stacked variables of several seeds: ``[n, seeds, ...]``."""
    return function if seeds == 1 else jax.vmap(function, in_axes=(0, None), out_axes=1)


def initial(method: Method, seeds: Sequence[int], batch: Mapping[str, Any]) -> Any:
    """Initial variables, for several seeds stacked."""
    init = jax.jit(method.init if len(seeds) == 1 else jax.vmap(method.init, in_axes=(0, None)))
    return init(keys_of(seeds), batch)


def stacked(tree: Any, count: int) -> Any:
    """The same tree for each of `count` seeds, where there are several."""
    return tree if count == 1 else jax.tree.map(lambda x: jnp.stack([x] * count), tree)


def criteria(
    method: Method, seeds: Sequence[int], variables: Any, infer: Callable, clusters: Callable[[], list[np.ndarray]]
) -> list[float]:
    """What is least in the seed to keep; 0 where the method has no criterion and so there is one seed only.

    clusters: gives those of the training data, int [n] of each seed.
    """
    if method.criterion is None:
        return [0.0]
    own = [float(method.criterion(k, v, infer)) for k, v in members(keys_of(seeds), variables, len(seeds))]
    return disagreement(clusters(), own) if method.consensus and len(seeds) > 1 else own


def disagreement(clusters: Sequence[np.ndarray], own: Sequence[float]) -> list[float]:
    """Minus the information, in nats, that each run shares with the others and with itself, a mean; at most 0.

    Runs err each in their own way: the one that tells most of the others (Strehl and Ghosh, Cluster ensembles, JMLR
    2002) has the fewest errors of its own. What its own views tell of each other counts as one run more: where most
    have collapsed alike, those would else agree best.

    Args:
      clusters: int [n] of each run. own: minus what each run's views share, see `shared_information`.
    """
    told = -np.diag(np.asarray(own, float))
    for i, j in combinations(range(len(clusters)), 2):
        told[i, j] = told[j, i] = mutual_info_score(clusters[i], clusters[j])
    return (-told.mean(1)).tolist()


def summary(seeds: Sequence[int], scores: Sequence[Mapping[str, float]], values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation of the scores, and those of each seed with its criterion, the least of which won."""
    names = list(scores[0])
    columns = {name: np.array([s[name] for s in scores], float) for name in names}
    return {
        "mean": {name: float(v.mean()) for name, v in columns.items()},
        "std": {name: float(v.std()) for name, v in columns.items()},
        "each": [{"seed": s, "criterion": v, **row} for s, v, row in zip(seeds, values, scores, strict=True)],
    }
