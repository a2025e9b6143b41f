"""Settings of the methods and the configs made from them. No JAX."""

from clustering_jax.settings.base import ADAM, EMBEDDINGS, MERGED, RUN, SMOKE, STREAMING, cc, cmmc, dmim, dxmc
from clustering_jax.settings.heads import temi, turtle

__all__ = ["ADAM", "EMBEDDINGS", "MERGED", "RUN", "SMOKE", "STREAMING", "cc", "cmmc", "dmim", "dxmc", "temi", "turtle"]
