"""DXMC on your own embeddings of images and nouns: a `.npz` with arrays `image`, `nouns` and `noun_words`.

Paper: https://arxiv.org/abs/2409.04561
Expected: no published figure. Look at the names in clusters.json, and at the scores without labels in result.json.
Minutes: less than one for 5,000 images of 384 columns and 16,000 nouns on 2 CPU cores.
Command: python -m clustering_jax.main --config=configs/dxmc_embeddings.py --workdir=runs/embeddings \
  --config.data.path=embeddings.npz --config.num_clusters=10
The embeddings of images and nouns must come from one model, such as CLIP. Their scale has no effect. Other names of the
arrays, a mask of training rows, and labels for scoring are settings of `data`. --config.num_clusters=auto chooses the
number of clusters in `cluster_range`.
"""

from clustering_jax.settings import EMBEDDINGS, dxmc


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated embeddings)."""
    return dxmc(variant, num_clusters=10, data={**EMBEDDINGS, "split": "all"})
