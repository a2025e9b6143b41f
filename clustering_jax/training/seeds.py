"""Several seeds of one run, trained side by side: their keys and slices, their scores, and the choice of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import mutual_info_score

from clustering_jax.errors import UserError
from clustering_jax.method import Method


def seeds_of(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns ``seed``, ``seed + 1``, ..., `num_seeds` of them."""
    return tuple(range(config["seed"], config["seed"] + config["num_seeds"]))


def check_numbers(config: Mapping[str, Any]) -> None:
    """Checks the settings `seed` and `num_seeds`, and the periods of the group `run`.

    Raises:
      UserError: a seed is below 0 or above 32 bits, the number of seeds is below 1, or a period is below 0.
    """
    if config["seed"] < 0:
        raise UserError(f"seed is {config['seed']}: choose 0 or more")
    if config["num_seeds"] < 1:
        raise UserError(f"num_seeds is {config['num_seeds']}: at least 1 run is needed")
    # JAX takes the lowest 32 bits of a seed: beyond them, two seeds would share all keys.
    if config["seed"] + config["num_seeds"] > 2**32:
        raise UserError(f"seed is {config['seed']}: choose less than 2^32, the last of num_seeds included")
    for name in ("log_every", "evaluate_every", "checkpoint_every", "keep", "resident_gib"):
        value = config.get("run", {}).get(name, 0)
        if not 0 <= value < float("inf"):
            raise UserError(f"run.{name} is {value}: choose 0 or more")


def check(config: Mapping[str, Any], method: Method, resident: bool) -> None:
    """Checks whether the seeds of a run can train side by side.

    Args:
      config: the configuration of the run.
      method: the method to train.
      resident: whether the data fit on the device.

    Raises:
      UserError: there are several seeds, and the method or the data do not allow that.
    """
    num_seeds = config["num_seeds"]
    if num_seeds > 1 and method.avoid_scan_on_cpu and jax.default_backend() == "cpu":
        raise UserError(
            f"num_seeds is {num_seeds}, but convolutions don't train side by side on a CPU: run one seed at a time"
        )
    if num_seeds > 1 and method.criterion is None:
        raise UserError(f"num_seeds is {num_seeds}, but {config['method']} can't choose among seeds: run one at a time")
    if num_seeds > 1 and not resident:
        raise UserError(f"num_seeds is {num_seeds}, but the data exceeds run.resident_gib: raise it, or run one seed")


def keys_of(seed_list: Sequence[int]) -> jax.Array:
    """Returns the random key of one seed, or the stacked keys of several seeds."""
    return jax.random.key(seed_list[0]) if len(seed_list) == 1 else jnp.stack([jax.random.key(s) for s in seed_list])


@jax.jit
def take_seed(tree: Any, i: int) -> Any:
    """Returns the slice of seed number `i` from a tree whose first dimension is the seed. It is compiled once."""
    return jax.tree.map(lambda x: x[i], tree)


def each_seed(key: jax.Array, variables: Any, num_seeds: int) -> Iterator[tuple[jax.Array, Any]]:
    """Returns an iterator over (key, variables) of each seed. One seed at a time, because a slice is a copy."""
    if num_seeds == 1:
        return iter([(key, variables)])
    return (take_seed((key, variables), i) for i in range(num_seeds))


def over_seeds(function: Callable, num_seeds: int) -> Callable:
    """Maps a function over the variables of several seeds.

    Args:
      function: ``(variables, batch) -> [n, ...]`` for one seed.
      num_seeds: number of seeds.

    Returns:
      ``(variables, batch) -> [n, num_seeds, ...]`` for stacked variables; `function` itself for one seed.
    """
    return function if num_seeds == 1 else jax.vmap(function, in_axes=(0, None), out_axes=1)


def init_variables(method: Method, seed_list: Sequence[int], batch: Mapping[str, Any]) -> Any:
    """Returns the initial variables of a method. With several seeds, the seed is the first dimension."""
    init = jax.jit(method.init if len(seed_list) == 1 else jax.vmap(method.init, in_axes=(0, None)))
    return init(keys_of(seed_list), batch)


def repeat_for_seeds(tree: Any, num_seeds: int) -> Any:
    """Returns `num_seeds` copies of a tree, stacked along a new first dimension; for one seed, the tree itself."""
    return tree if num_seeds == 1 else jax.tree.map(lambda x: jnp.stack([x] * num_seeds), tree)


def criteria(
    method: Method, seed_list: Sequence[int], variables: Any, infer: Callable, clusters: Callable[[], list[np.ndarray]]
) -> list[float]:
    """Returns a criterion for each seed. The seed with the smallest value is kept.

    Args:
      method: the method that was trained.
      seed_list: the seeds.
      variables: trained variables. With several seeds, the seed is the first dimension.
      infer: passed to `Method.criterion`.
      clusters: returns the clusters of the training data, int [n] for each seed. It is called only if needed.

    Returns:
      One number per seed; [0.0] if the method has no criterion, because then there is only one seed.
    """
    if method.criterion is None:
        return [0.0]
    num_seeds = len(seed_list)
    own = [float(method.criterion(k, v, infer)) for k, v in each_seed(keys_of(seed_list), variables, num_seeds)]
    return disagreement(clusters(), own) if method.consensus and num_seeds > 1 else own


def disagreement(clusters: Sequence[np.ndarray], own: Sequence[float]) -> list[float]:
    """Returns minus the mean mutual information of each run's clusters with those of all runs.

    The errors of different runs are different. So the run that shares most information with the others has the fewest
    errors of its own (Strehl and Ghosh, Cluster ensembles, JMLR 2002). The information that a run's own views share
    counts like one more run: otherwise, if most runs collapse in the same way, those would agree best.

    Args:
      clusters: int [n] of each run.
      own: minus the information in nats that each run's views share, see `Method.criterion`.

    Returns:
      One number per run, in nats, at most 0.
    """
    information = -np.diag(np.asarray(own, float))
    for i, j in combinations(range(len(clusters)), 2):
        information[i, j] = information[j, i] = mutual_info_score(clusters[i], clusters[j])
    return (-information.mean(1)).tolist()


def summary(seed_list: Sequence[int], scores: Sequence[Mapping[str, float]], values: Sequence[float]) -> dict[str, Any]:
    """Summarises the scores of several seeds for result.json.

    Args:
      seed_list: the seeds.
      scores: the scores of each seed by name.
      values: the criterion of each seed. The seed with the smallest one is kept.

    Returns:
      "mean" and "std": the scores' mean and standard deviation over the seeds; "each": one dictionary per seed.
    """
    names = list(scores[0])
    columns = {name: np.array([s[name] for s in scores], float) for name in names}
    return {
        "mean": {name: float(v.mean()) for name, v in columns.items()},
        "std": {name: float(v.std()) for name, v in columns.items()},
        "each": [{"seed": s, "criterion": v, **row} for s, v, row in zip(seed_list, values, scores, strict=True)],
    }
