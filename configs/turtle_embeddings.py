"""TURTLE on your own embeddings: a `.npz` file with an array `image` [n, d] of one encoder.

Paper: https://arxiv.org/abs/2406.07236
Expected: no published figure for embeddings of norm 1. docs/results.md has our measurements.
Minutes: about two for one seed and four for ten seeds side by side, with 5,000 images and 3,000 steps on 2 CPU cores
  (estimates).
Command: python -m clustering_jax.main --config=configs/turtle_embeddings.py --workdir=runs/turtle \
  --config.data.path=embeddings.npz --config.num_clusters=10 --config.num_seeds=10
With several seeds, the seed is kept whose clusters a linear classifier predicts best. This needs no labels. Other names
of the arrays, a mask of training rows, and labels for scoring are settings of `data`.
"""

from clustering_jax.settings import EMBEDDINGS, turtle


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated embeddings)."""
    return turtle(variant, num_clusters=10, data={**EMBEDDINGS, "split": "all"})
