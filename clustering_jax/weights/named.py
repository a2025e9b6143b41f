"""PyTorch state dictionaries as Flax variables, checked name by name and shape by shape."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Set
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from clustering_jax.errors import UserError
from clustering_jax.weights.torch_file import read_torch
from clustering_jax.weights.torch_pickle import brief

# Flax's name of a leaf -> torch's.
LEAVES = {
    **{"kernel": "weight", "scale": "weight", "bias": "bias"},
    **{"mean": "running_mean", "var": "running_var"},
}
# From torch's [out, in, rows, columns] and [out, in] to Flax's [rows, columns, in, out] and [in, out].
_AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}


def load_named(
    path: str | os.PathLike,
    variables: Mapping[str, Any],
    torch_name: Callable[[tuple[str, ...]], str],
    *,
    last: str,
    check: Callable[[Set[str], Set[str]], str] = lambda wanted, found: "",
) -> dict[str, Any]:
    """`variables` with every value taken from the file's tensor of the same meaning.

    Args:
      path: of a file with ``{"net": state_dict, ...}`` or with a state_dict; its names may start with ``module.``.
      variables: collections, for their structure, shapes and types.
      torch_name: the tensor's name for a variable's path, collection first.
      last: name, without its leaf, of the layer whose width is the number of clusters.
      check: of the names wanted and found, what is known to be wrong; "" is nothing.

    Raises:
      UserError: see `read_torch`; also another shape, a variable without a tensor or a tensor without a variable.
    """
    theirs, ours = state_dict(path), flatten_dict(variables)
    names = {torch_name(p): p for p in ours}
    if reason := check(names.keys(), theirs.keys()):
        raise UserError(f"{path} {reason}")
    _check_names(path, names.keys(), theirs.keys())
    _check_shapes(path, {name: _torch_shape(ours[p].shape) for name, p in names.items()}, theirs, last)
    filled = {p: theirs[name].transpose(_AXES[theirs[name].ndim]) for name, p in names.items()}
    # Copies: training donates its buffers, and these views are of the file's bytes.
    return unflatten_dict({p: jnp.array(value, ours[p].dtype) for p, value in filled.items()})


def state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The file's tensors by name, without the counters of batches."""
    tree = read_torch(path)
    state = tree.get("net", tree)
    if not isinstance(state, dict) or not all(isinstance(v, np.ndarray) for v in state.values()):
        raise UserError(f"{path} holds neither {{'net': state_dict}} nor a state_dict of tensors")
    if all(str(k).startswith("module.") for k in state):
        state = {k.removeprefix("module."): v for k, v in state.items()}
    return {str(k): v for k, v in state.items() if not str(k).endswith("num_batches_tracked")}


def _check_names(path: str | os.PathLike, wanted: Set[str], found: Set[str]) -> None:
    parts = [("missing", sorted(wanted - found)), ("left over", sorted(found - wanted))]
    if any(names for _, names in parts):
        texts = [f"{len(names)} tensors {what} ({_first(names)})" for what, names in parts if names]
        raise UserError(f"{path} does not fit the network: {', '.join(texts)}")


def _first(texts: list[str]) -> str:
    return ", ".join(ascii(t)[1:-1][:100] for t in texts[:3]) + (", ..." if len(texts) > 3 else "")


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[i] for i in np.argsort(_AXES[len(shape)]))


def _check_shapes(path: str | os.PathLike, wanted: Mapping[str, tuple], theirs: Mapping[str, Any], last: str) -> None:
    wrong = {n: brief(theirs[n].shape) for n, shape in wanted.items() if theirs[n].shape != shape}
    if not wrong:
        return
    texts = [f"{name} is {found}, the network wants {brief(wanted[name])}" for name, found in wrong.items()]
    reason = f"{len(wrong)} tensors differ in shape: {_first(texts)}"
    weight = f"{last}.weight"
    if wrong.keys() <= {weight, f"{last}.bias"}:
        reason = f"{weight} is {brief(theirs[weight].shape)}, the config wants {wanted[weight][0]} clusters"
    raise UserError(f"{path} does not fit the network: {reason}")
