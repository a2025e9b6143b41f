"""Reads data sets from files into NumPy arrays. This chapter does not import JAX."""

from clustering_jax.data.sources import SOURCES, load

__all__ = ["SOURCES", "load"]
