"""The methods by the name a config gives them: each is ``build(spec, **settings) -> Method``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clustering_jax.errors import UserError, check_keywords, nearest
from clustering_jax.method import Method, Spec
from clustering_jax.methods import cc, cmmc, dmim, dxmc, kmeans, scmvc, spectral, temi, turtle
from clustering_jax.settings import method_reference

METHODS = {
    "cc": cc.build,
    "cmmc": cmmc.build,
    "dmim": dmim.build,
    "dxmc": dxmc.build,
    "kmeans": kmeans.build,
    "scmvc": scmvc.build,
    "spectral": spectral.build,
    "temi": temi.build,
    "turtle": turtle.build,
}


def from_config(config: Mapping[str, Any], steps_per_epoch: Mapping[str, int]) -> Method:
    """The method of a plain, resolved config: its `model` settings, `optimizer` and, if it has one, `augment`.

    Raises:
      UserError: an unknown method or setting, with the nearest known name.
    """
    name = config["method"]
    build = METHODS.get(name) or method_reference.load(name)
    if build is None:
        raise UserError(f"unknown method '{name}'{nearest(name, [*METHODS, *method_reference.entry_names()])}")
    spec = Spec(config["num_clusters"], config["batch_size"], config["epochs"], steps_per_epoch)
    settings = {**config["model"], **{k: config[k] for k in ("augment", "optimizer") if k in config}}
    check_keywords(build, settings, f"method '{name}'")
    return build(spec, **settings)
