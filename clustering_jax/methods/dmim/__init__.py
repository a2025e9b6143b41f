"""DMIM: see `method`."""

from clustering_jax.methods.dmim.method import build

__all__ = ["build"]
