"""Converts PyTorch state dictionaries to Flax variables. The name and the shape of each tensor are checked."""

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

# Name of a leaf in Flax -> its name in PyTorch.
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
    check: Callable[[Set[str], Set[str]], str] = lambda expected, stored: "",
) -> dict[str, Any]:
    """Loads variables from a PyTorch file.

    Args:
      path: file with ``{"net": state_dict, ...}`` or with a state_dict. All its names may start with ``module.``.
      variables: collections whose structure, shapes and dtypes the result has.
      torch_name: maps the path of a variable, with the collection first, to the name of its tensor.
      last: name of the layer whose number of outputs is the number of clusters, without "weight" or "bias".
      check: ``(expected names, stored names) -> str``. It recognises common mistakes and returns the end of an error
        message, or "".

    Returns:
      `variables` with all values replaced by those of the file.

    Raises:
      UserError: the file can't be read (see `read_torch`), a shape differs, a variable has no tensor, or a tensor has
        no variable.
    """
    theirs, ours = state_dict(path), flatten_dict(variables)
    names = {torch_name(p): p for p in ours}
    if reason := check(names.keys(), theirs.keys()):
        raise UserError(f"{path} {reason}")
    _check_names(path, names.keys(), theirs.keys())
    _check_shapes(path, {name: _torch_shape(ours[p].shape) for name, p in names.items()}, theirs, last)
    filled = {p: theirs[name].transpose(_AXES[theirs[name].ndim]) for name, p in names.items()}
    # Copied, because training donates its buffers and these arrays are views of the file's bytes.
    return unflatten_dict({p: jnp.array(value, ours[p].dtype) for p, value in filled.items()})


def state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of the file by name, without the batch counters of the norms."""
    tree = read_torch(path)
    state = tree.get("net", tree)
    if not isinstance(state, dict) or not all(isinstance(v, np.ndarray) for v in state.values()):
        raise UserError(f"{path} holds neither {{'net': state_dict}} nor a state_dict of tensors")
    if all(str(k).startswith("module.") for k in state):
        state = {k.removeprefix("module."): v for k, v in state.items()}
    return {str(k): v for k, v in state.items() if not str(k).endswith("num_batches_tracked")}


def _check_names(path: str | os.PathLike, expected: Set[str], stored: Set[str]) -> None:
    parts = [("missing", sorted(expected - stored)), ("left over", sorted(stored - expected))]
    if any(names for _, names in parts):
        texts = [f"{len(names)} tensors {problem} ({_first(names)})" for problem, names in parts if names]
        raise UserError(f"{path} does not fit the network: {', '.join(texts)}")


def _first(texts: list[str]) -> str:
    return ", ".join(ascii(t)[1:-1][:100] for t in texts[:3]) + (", ..." if len(texts) > 3 else "")


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[i] for i in np.argsort(_AXES[len(shape)]))


def _check_shapes(path: str | os.PathLike, expected: Mapping[str, tuple], theirs: Mapping[str, Any], last: str) -> None:
    wrong = {n: brief(theirs[n].shape) for n, shape in expected.items() if theirs[n].shape != shape}
    if not wrong:
        return
    texts = [f"{name} is {stored}, the network expects {brief(expected[name])}" for name, stored in wrong.items()]
    reason = f"{len(wrong)} tensors differ in shape: {_first(texts)}"
    weight = f"{last}.weight"
    if wrong.keys() <= {weight, f"{last}.bias"}:
        reason = f"{weight} is {brief(theirs[weight].shape)}, the config expects {expected[weight][0]} clusters"
    raise UserError(f"{path} does not fit the network: {reason}")
