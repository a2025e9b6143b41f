"""DXMC on STL-10: 10 clusters, 5,000 training images.

Paper: https://arxiv.org/abs/2409.04561
Expected (NMI / ACC / ARI, published, CLIP ViT-B/32): .958 / .983 / .967.
Minutes: embedding takes most: some 30 images/s on 2 CPU cores, an estimate; training less than ten minutes.
Command: python -m clustering_jax.main --config=configs/dxmc_stl10.py --workdir=runs/dxmc_stl10 \
  --config.embed.clip=CLIP --config.embed.nouns=WORDNET
CLIP: a directory with CLIP ViT-B/32 (Hugging Face's or open_clip's files); WORDNET: the directory of WordNet 3.0.
Trained on the 5,000 training images, scored on the 8,000 test images; labels are for scoring alone.
`python -m clustering_jax.embed` with this config makes the embeddings alone;
--config.data.path=DIR --config.scored.path=DIR then takes them.
Prepare once (extra [prepare]): python -m clustering_jax.data.images.prepare stl10
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
