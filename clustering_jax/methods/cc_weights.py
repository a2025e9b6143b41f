"""The authors' released CC checkpoints, ``{'net', 'optimizer', 'epoch'}``, as variables of `cc.Network`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Set
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from clustering_jax.errors import UserError
from clustering_jax.nn.resnet import DEPTHS
from clustering_jax.torch_checkpoint import read_torch
from clustering_jax.torch_pickle import brief

_LEAVES = {
    **{"kernel": "weight", "scale": "weight", "bias": "bias"},
    **{"mean": "running_mean", "var": "running_var"},
}
_HEADS = {"instance_head": "instance_projector", "cluster_head": "cluster_projector"}
# From torch's [out, in, rows, columns] and [out, in] to Flax's [rows, columns, in, out] and [in, out].
_AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
_BACKBONES = {layout: name for name, layout in DEPTHS.items()}


def torch_name(path: tuple[str, ...]) -> str:
    """The authors' name of the variable at `path` (collection first) of CC's network.

    ``("params", "encoder", "layer1_0", "conv1", "kernel")`` -> ``"resnet.layer1.0.conv1.weight"``.
    """
    _collection, part, *modules, leaf = path
    if part in _HEADS:
        (linear,) = modules
        return f"{_HEADS[part]}.{linear.removeprefix('linear_')}.{_LEAVES[leaf]}"
    return f"resnet.{'.'.join(modules).replace('_', '.')}.{_LEAVES[leaf]}"


def load_cc(path: str | os.PathLike, variables: Mapping[str, Any]) -> dict[str, Any]:
    """CC's `variables` with every value taken from the authors' checkpoint.

    Args:
      path: of a file with ``{"net": state_dict, ...}``, as the authors', or with a state_dict; its names may
        start with ``module.``.
      variables: ``{"params": ..., "batch_stats": ...}``, for its structure, shapes and types.

    Returns:
      The same tree, with the file's running statistics.

    Raises:
      UserError: see `read_torch`; also another backbone, number of clusters or shape, a variable without a
        tensor or a tensor without a variable.
    """
    theirs, ours = _state_dict(path), flatten_dict(variables)
    names = {torch_name(p): p for p in ours}
    _check_names(path, names.keys(), theirs.keys())
    _check_shapes(path, {name: _torch_shape(ours[p].shape) for name, p in names.items()}, theirs)
    filled = {p: theirs[name].transpose(_AXES[theirs[name].ndim]) for name, p in names.items()}
    # Copies: training donates its buffers, and these views are of the file's bytes.
    return unflatten_dict({p: jnp.array(value, ours[p].dtype) for p, value in filled.items()})


def _state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    tree = read_torch(path)
    state = tree.get("net", tree)
    if not isinstance(state, dict) or not all(isinstance(v, np.ndarray) for v in state.values()):
        raise UserError(f"{path} holds neither {{'net': state_dict}} nor a state_dict of tensors")
    if all(str(k).startswith("module.") for k in state):
        state = {k.removeprefix("module."): v for k, v in state.items()}
    return {str(k): v for k, v in state.items() if not str(k).endswith("num_batches_tracked")}


def _backbone(names: Iterable[str]) -> str:
    blocks = {m.groups() for m in (re.match(r"resnet\.layer(\d)\.(\d+)\.", n) for n in names) if m}
    counts = tuple(sum(layer == i for layer, _ in blocks) for i in "1234")
    bottleneck = any(".conv3." in n for n in names)
    return _BACKBONES.get((counts, bottleneck), f"network of {list(counts)} residual blocks")


def _check_names(path: str | os.PathLike, wanted: Set[str], found: Set[str]) -> None:
    if (theirs := _backbone(found)) != (ours := _backbone(wanted)):
        raise UserError(f"{path} looks like a {theirs}, the config wants a {ours}: change one of them")
    parts = [("missing", sorted(wanted - found)), ("left over", sorted(found - wanted))]
    if any(names for _, names in parts):
        texts = [f"{len(names)} tensors {what} ({_first(names)})" for what, names in parts if names]
        raise UserError(f"{path} does not fit the network: {', '.join(texts)}")


def _first(texts: list[str]) -> str:
    return ", ".join(ascii(t)[1:-1][:100] for t in texts[:3]) + (", ..." if len(texts) > 3 else "")


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[i] for i in np.argsort(_AXES[len(shape)]))


def _check_shapes(path: str | os.PathLike, wanted: Mapping[str, tuple], theirs: Mapping[str, Any]) -> None:
    wrong = {n: brief(theirs[n].shape) for n, shape in wanted.items() if theirs[n].shape != shape}
    if not wrong:
        return
    texts = [f"{name} is {found}, the network wants {brief(wanted[name])}" for name, found in wrong.items()]
    reason = f"{len(wrong)} tensors differ in shape: {_first(texts)}"
    last = "cluster_projector.2.weight"
    if wrong.keys() <= {last, "cluster_projector.2.bias"}:
        reason = f"{last} is {brief(theirs[last].shape)}, the config wants {wanted[last][0]} clusters"
    raise UserError(f"{path} does not fit the network: {reason}")
