"""DXMC: see `method`."""

from clustering_jax.methods.dxmc.method import build

__all__ = ["build"]
