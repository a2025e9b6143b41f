"""CC: see `method`."""

from clustering_jax.methods.cc.method import build

__all__ = ["build"]
