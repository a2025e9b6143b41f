"""The authors' released MFLVC models, plain state dictionaries, as variables of `cmmc.Network`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from clustering_jax.weights.named import LEAVES, load_named

_HEADS = {"feature_head": "feature_contrastive_module", "label_head": "label_contrastive_module"}


def torch_name(path: tuple[str, ...]) -> str:
    """The authors' name of the variable at `path` (collection first) of CMMC's network.

    ``("params", "encoder_view1", "linear_2", "kernel")`` -> ``"encoders.1.encoder.2.weight"``.
    """
    _collection, part, linear, leaf = path
    if part not in _HEADS:
        coder, view = part.split("_view")
        part = f"{coder}s.{view}.{coder}"
    return f"{_HEADS.get(part, part)}.{linear.removeprefix('linear_')}.{LEAVES[leaf]}"


def load_cmmc(path: str | os.PathLike, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces the variables of CMMC by those of the authors' file, see `load_named`.

    Args:
      path: path of the authors' file.
      variables: variables of the network, for their structure, shapes and types.

    Returns:
      The new variables.
    """
    return load_named(path, variables, torch_name, last=_HEADS["label_head"] + ".0")
