"""Settings of the methods and the configs made from them. No JAX."""

from clustering_jax.settings.base import (
    ADAM,
    EMBEDDINGS,
    MERGED,
    PHOTOS,
    RUN,
    SMOKE,
    STREAMING,
    is_smoke,
    new_config,
    split_variant,
)
from clustering_jax.settings.cc import cc
from clustering_jax.settings.cmmc import cmmc, mflvc_or_bdcl, views
from clustering_jax.settings.dmim import dmim
from clustering_jax.settings.dxmc import dxmc
from clustering_jax.settings.kmeans import kmeans
from clustering_jax.settings.method_reference import own_method
from clustering_jax.settings.scmvc import scmvc
from clustering_jax.settings.spectral import spectral
from clustering_jax.settings.temi import temi
from clustering_jax.settings.turtle import photos, turtle

__all__ = [
    "ADAM",
    "EMBEDDINGS",
    "MERGED",
    "PHOTOS",
    "RUN",
    "SMOKE",
    "STREAMING",
    "cc",
    "cmmc",
    "dmim",
    "dxmc",
    "is_smoke",
    "kmeans",
    "mflvc_or_bdcl",
    "new_config",
    "own_method",
    "photos",
    "scmvc",
    "spectral",
    "split_variant",
    "temi",
    "turtle",
    "views",
]
