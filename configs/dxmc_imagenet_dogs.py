"""DXMC on ImageNet-Dogs: 15 clusters, 19,500 training images.

Paper: https://arxiv.org/abs/2409.04561
Expected (NMI / ACC / ARI, published, CLIP ViT-B/32): .791 / .861 / .750.
Minutes: embedding takes most of the time, at about 30 images/s on 2 CPU cores (an estimate). Training takes less than
  ten minutes.
Command: python -m clustering_jax.main --config=configs/dxmc_imagenet_dogs.py --workdir=runs/dxmc_imagenet_dogs \
  --config.embed.clip=CLIP --config.embed.nouns=WORDNET \
  --config.embed.splits.train.path=IMAGENET/train --config.embed.splits.val.path=IMAGENET/val
CLIP is a directory with CLIP ViT-B/32 (files of Hugging Face or open_clip). WORDNET is the directory of WordNet 3.0.
The run trains on the 19,500 training images and scores the 750 validation images. Labels are used for scoring only.
`python -m clustering_jax.embed` with this config only computes the embeddings. After that,
`--config.data.path=DIR --config.scored.path=DIR` trains on them.
IMAGENET/train and IMAGENET/val have one folder per synset. Other synsets are ignored, and the number of images is
checked.
TAC also scores the validation images, but the authors' released code scores the training images. To do the same, set
--config.scored.split=train. result.json names the scored split.
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
