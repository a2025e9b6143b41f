"""TEMI on your own embeddings: a `.npz` file with an array `image` [n, d] of one encoder.

Paper: https://arxiv.org/abs/2303.17896
Expected (ACC / NMI / ARI, published, CLIP ViT-L/14): CIFAR-10 .969 / .926 / .932, CIFAR-100 .737 / .799 / .612.
Minutes: six for 4 heads and 60 epochs on 5,000 images of 384 columns, measured on 2 busy CPU cores.
Command: python -m clustering_jax.main --config=configs/temi_embeddings.py --workdir=runs/temi \
  --config.data.path=embeddings.npz --config.num_clusters=10
The learning rate is for batches of 1,024 rows: the authors use 1e-4 * batch_size / 256. The published figures are the
best test scores among the saved checkpoints. Here the last epoch is scored, so expect slightly lower scores.
"""

from clustering_jax.settings import EMBEDDINGS, temi


def get_config(variant: str = ""):
    """`variant`: "" as published, "quick" for a few thousand rows or a CPU, or "smoke" (two steps)."""
    return temi(variant, num_clusters=10, data={**EMBEDDINGS, "split": "all"})
