"""Deep clustering in JAX and Flax: images, several views of the same objects, and embeddings, without labels."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# The module that holds each public name. A module is imported when its name is first used: JAX takes seconds.
_MODULES = {
    "losses": "clustering_jax.losses",
    "estimators": "clustering_jax.estimators",
    "kmeans": "clustering_jax.kmeans",
    "Method": "clustering_jax.method",
    "Phase": "clustering_jax.method",
    "Objective": "clustering_jax.method",
    "Predictor": "clustering_jax.inference.predictor",
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'clustering_jax' has no attribute '{name}'")
    module = import_module(_MODULES[name])
    return module if module.__name__ == f"clustering_jax.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
