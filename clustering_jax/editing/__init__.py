"""Corrections of a finished run by hand: merge, split, rename, move, lock; and training on them."""

from clustering_jax.editing.edits import edit, match
from clustering_jax.editing.request import Request
from clustering_jax.editing.training import Training

__all__ = ["Request", "Training", "edit", "match"]
