"""Settings of the methods and the configs made from them. No JAX."""

from clustering_jax.settings.base import cc, cmmc, dmim, dxmc
from clustering_jax.settings.heads import temi, turtle

__all__ = ["cc", "cmmc", "dmim", "dxmc", "temi", "turtle"]
