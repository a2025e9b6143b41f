"""DXMC on ImageNet-1k: 1,000 clusters, 1,281,167 training images.

Paper: https://arxiv.org/abs/2409.04561
Expected (NMI / ACC / ARI, published, CLIP ViT-B/32): no figure is known here.
Minutes: days on CPUs, for embedding at about 30 images/s and for k-means with 4,271 centres. Use an accelerator.
Command: python -m clustering_jax.main --config=configs/dxmc_imagenet1k.py --workdir=runs/dxmc_imagenet1k \
  --config.embed.clip=CLIP --config.embed.nouns=WORDNET \
  --config.embed.splits.train.path=IMAGENET/train --config.embed.splits.val.path=IMAGENET/val
CLIP is a directory with CLIP ViT-B/32 (files of Hugging Face or open_clip). WORDNET is the directory of WordNet 3.0.
The run trains on the 1,281,167 training images and scores the 50,000 validation images. Labels are used for scoring
only.
`python -m clustering_jax.embed` with this config only computes the embeddings. After that,
`--config.data.path=DIR --config.scored.path=DIR` trains on them.
IMAGENET/train and IMAGENET/val have one folder per synset. k-means and the search of neighbours work in blocks, so they
need little memory in addition to the embeddings.
"""

from clustering_jax.settings import EMBEDDINGS, dxmc


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated embeddings)."""
    return dxmc(
        variant,
        num_clusters=1000,
        scored={**EMBEDDINGS, "split": "val"},
        model={"centers": 4271, "cluster_temperature": 5.0, "instance_temperature": 0.5},
        batch_size=8192,
        epochs=100,
        embed={
            "resize": 256,
            "splits": {
                "train": {
                    "source": "folder",
                    "path": "",
                    "expected_count": 1281167,
                    "labels_from_folders": True,
                    "on_error": "error",
                },
                "val": {
                    "source": "folder",
                    "path": "",
                    "expected_count": 50000,
                    "labels_from_folders": True,
                    "on_error": "error",
                },
            },
        },
    )
