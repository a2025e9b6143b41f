"""DXMC on ImageNet-Dogs: 15 clusters, 19,500 training images.

Paper: https://arxiv.org/abs/2409.04561
Expected (NMI / ACC / ARI, published, CLIP ViT-B/32): .791 / .861 / .750.
Minutes: embedding takes most: some 30 images/s on 2 CPU cores, an estimate; training less than ten minutes.
Command: python -m clustering_jax.main --config=configs/dxmc_imagenet_dogs.py --workdir=runs/dxmc_imagenet_dogs \
  --config.embed.clip=CLIP --config.embed.nouns=WORDNET \
  --config.embed.splits.train.path=IMAGENET/train --config.embed.splits.val.path=IMAGENET/val
CLIP: a directory with CLIP ViT-B/32 (Hugging Face's or open_clip's files); WORDNET: the directory of WordNet 3.0.
Trained on the 19,500 training images, scored on the 750 validation images; labels are for scoring alone.
`python -m clustering_jax.embed` with this config makes the embeddings alone;
--config.data.path=DIR --config.scored.path=DIR then takes them.
IMAGENET/train and IMAGENET/val: a folder per synset; others in it are left alone, and counts are checked.
The authors' released code scores the training images instead, TAC the validation images as here: for the former
--config.scored.split=train. result.json says which it was.
"""

from clustering_jax.settings import EMBEDDINGS, dxmc


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated embeddings)."""
    return dxmc(
        variant,
        num_clusters=15,
        scored={**EMBEDDINGS, "split": "val"},
        model={"centers": 65},
        embed={
            "resize": 256,
            "splits": {
                "train": {
                    "source": "folder",
                    "path": "",
                    "classes": "imagenet_dogs",
                    "expected_count": 19500,
                    "labels_from_folders": True,
                    "on_error": "error",
                },
                "val": {
                    "source": "folder",
                    "path": "",
                    "classes": "imagenet_dogs",
                    "expected_count": 750,
                    "labels_from_folders": True,
                    "on_error": "error",
                },
            },
        },
    )
