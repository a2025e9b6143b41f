"""DXMC on STL-10: 10 clusters, 5,000 training images.

Paper: https://arxiv.org/abs/2409.04561
Expected (NMI / ACC / ARI, published, CLIP ViT-B/32): .958 / .983 / .967.
Minutes: embedding takes most of the time, at about 30 images/s on 2 CPU cores (an estimate). Training takes less than
  ten minutes.
Command: python -m clustering_jax.main --config=configs/dxmc_stl10.py --workdir=runs/dxmc_stl10 \
  --config.embed.clip=CLIP --config.embed.nouns=WORDNET
CLIP is a directory with CLIP ViT-B/32 (files of Hugging Face or open_clip). WORDNET is the directory of WordNet 3.0.
The run trains on the 5,000 training images and scores the 8,000 test images. Labels are used for scoring only.
`python -m clustering_jax.embed` with this config only computes the embeddings. After that,
`--config.data.path=DIR --config.scored.path=DIR` trains on them.
Prepare the data once (extra [prepare]): python -m clustering_jax.data.images.prepare stl10
"""

from clustering_jax.settings import EMBEDDINGS, dxmc


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated embeddings)."""
    return dxmc(
        variant,
        num_clusters=10,
        scored={**EMBEDDINGS, "split": "test"},
        model={"centers": 17},
        embed={
            "resize": 224,
            "splits": {
                "train": {"source": "tfds", "name": "stl10", "splits": "train", "tfds_dir": ""},
                "test": {"source": "tfds", "name": "stl10", "splits": "test", "tfds_dir": ""},
            },
        },
    )
