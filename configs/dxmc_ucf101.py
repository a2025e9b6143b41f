"""DXMC on UCF101: 101 clusters, the middle frame of each video.

Paper: https://arxiv.org/abs/2409.04561
Expected (NMI / ACC / ARI, published, CLIP ViT-B/32): no figure is known here.
Minutes: embedding takes most of the time, at about 30 images/s on 2 CPU cores (an estimate). Training takes less than
  ten minutes.
Command: python -m clustering_jax.main --config=configs/dxmc_ucf101.py --workdir=runs/dxmc_ucf101 \
  --config.embed.clip=CLIP --config.embed.nouns=WORDNET \
  --config.embed.splits.train.path=DIR/train --config.embed.splits.test.path=DIR/test
CLIP is a directory with CLIP ViT-B/32 (files of Hugging Face or open_clip). WORDNET is the directory of WordNet 3.0.
The run trains on DIR/train and scores DIR/test. Labels are used for scoring only.
`python -m clustering_jax.embed` with this config only computes the embeddings. After that,
`--config.data.path=DIR --config.scored.path=DIR` trains on them.
DIR/train and DIR/test have one folder per class with the frames (TAC trains on 9,537 frames and scores 3,783).
"""

from clustering_jax.settings import EMBEDDINGS, dxmc


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated embeddings)."""
    return dxmc(
        variant,
        num_clusters=101,
        scored={**EMBEDDINGS, "split": "test"},
        model={"centers": 303, "cluster_temperature": 5.0, "instance_temperature": 0.5},
        batch_size=8192,
        epochs=100,
        embed={
            "resize": 224,
            "splits": {
                "train": {
                    "source": "folder",
                    "path": "",
                    "labels_from_folders": True,
                    "on_error": "error",
                },
                "test": {
                    "source": "folder",
                    "path": "",
                    "labels_from_folders": True,
                    "on_error": "error",
                },
            },
        },
    )
