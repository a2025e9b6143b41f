"""The authors' released CC checkpoints, ``{'net', 'optimizer', 'epoch'}``, as variables of `cc.Network`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Set
from typing import Any

from clustering_jax.nn.resnet import DEPTHS
from clustering_jax.weights.named import LEAVES, load_named

_HEADS = {"instance_head": "instance_projector", "cluster_head": "cluster_projector"}
_BACKBONES = {layout: name for name, layout in DEPTHS.items()}


def torch_name(path: tuple[str, ...]) -> str:
    """The authors' name of the variable at `path` (collection first) of CC's network.

    ``("params", "encoder", "layer1_0", "conv1", "kernel")`` -> ``"resnet.layer1.0.conv1.weight"``.
    """
    _collection, part, *modules, leaf = path
    if part in _HEADS:
        (linear,) = modules
        return f"{_HEADS[part]}.{linear.removeprefix('linear_')}.{LEAVES[leaf]}"
    return f"resnet.{'.'.join(modules).replace('_', '.')}.{LEAVES[leaf]}"


def load_cc(path: str | os.PathLike, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces the variables of CC by those of the authors' checkpoint.

    Args:
      path: path of a file with ``{"net": state_dict, ...}``, as the authors save it, or with a state_dict. Its names
        may start with ``module.``.
      variables: ``{"params": ..., "batch_stats": ...}``, for its structure, shapes and types.

    Returns:
      The same tree with the values of the file, running statistics included.

    Raises:
      UserError: the file can't be read, see `read_torch`; it has another backbone, number of clusters or shape; or
        its names do not match the variables.
    """
    return load_named(path, variables, torch_name, last="cluster_projector.2", check=_check_backbone)


def _backbone(names: Iterable[str]) -> str:
    blocks = {m.groups() for m in (re.match(r"resnet\.layer(\d)\.(\d+)\.", n) for n in names) if m}
    counts = tuple(sum(layer == i for layer, _ in blocks) for i in "1234")
    bottleneck = any(".conv3." in n for n in names)
    return _BACKBONES.get((counts, bottleneck), f"network of {list(counts)} residual blocks")


def _check_backbone(wanted: Set[str], found: Set[str]) -> str:
    theirs, ours = _backbone(found), _backbone(wanted)
    return "" if theirs == ours else f"looks like a {theirs}, the config expects a {ours}: change one of them"
