"""Settings of the methods and the configs made from them. No JAX."""

from clustering_jax.settings.base import ADAM, EMBEDDINGS, MERGED, RUN, SMOKE, STREAMING, cc, cmmc, dmim, dxmc
from clustering_jax.settings.method_reference import own_method

__all__ = ["ADAM", "EMBEDDINGS", "MERGED", "RUN", "SMOKE", "STREAMING", "cc", "cmmc", "dmim", "dxmc", "own_method"]
