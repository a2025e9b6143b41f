"""Data sets: readers of files into NumPy arrays. No JAX is imported here."""

from clustering_jax.data.sources import SOURCES, load

__all__ = ["SOURCES", "load"]
