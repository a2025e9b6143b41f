"""TURTLE on your own embeddings: a `.npz` with an array `image` [n, d] of one encoder.

Paper: https://arxiv.org/abs/2406.07236
Expected: no published figure on embeddings of norm 1; docs/results.md has what was measured here.
Minutes: for 5,000 images and 3,000 steps on 2 CPU cores about two for one seed, four for ten side by side (estimates).
Command: python -m clustering_jax.main --config=configs/turtle_embeddings.py --workdir=runs/turtle \
  --config.data.path=embeddings.npz --config.num_clusters=10 --config.num_seeds=10
Of several seeds, the one is kept whose clusters a linear classifier predicts best; no label enters. Arrays of other
names, a mask of training rows and labels for scoring are settings of `data`.
"""

from clustering_jax.settings import EMBEDDINGS, turtle


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated embeddings)."""
    return turtle(variant, num_clusters=10, data={**EMBEDDINGS, "split": "all"})
