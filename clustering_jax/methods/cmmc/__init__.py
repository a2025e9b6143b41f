"""CMMC: see `method`."""

from clustering_jax.methods.cmmc.method import build

__all__ = ["build"]
