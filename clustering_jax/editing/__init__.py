"""Corrections of a finished run by hand: merge, split, rename, move, lock; training on them; and new rows."""

from clustering_jax.editing.edits import edit, match
from clustering_jax.editing.new_data import update
from clustering_jax.editing.request import Request
from clustering_jax.editing.training import Training

__all__ = ["Request", "Training", "edit", "match", "update"]
