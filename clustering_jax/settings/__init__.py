"""Settings of the methods and the configs made from them. No JAX."""

from clustering_jax.settings.base import cc, cmmc, dmim, dxmc

__all__ = ["cc", "cmmc", "dmim", "dxmc"]
