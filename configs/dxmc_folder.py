"""DXMC on a folder of your own photos with a CLIP model and a list of nouns: clusters with names.

Paper: https://arxiv.org/abs/2409.04561
Expected: no published figure. Look at the names in clusters.json, and at the scores without labels in result.json.
Minutes: embedding with CLIP ViT-B/32 takes about a second for 30 photos on 2 CPU cores (an estimate). Training takes
  less than a minute.
Command: python -m clustering_jax.main --config=configs/dxmc_folder.py --workdir=runs/photos \
  --config.embed.splits.train.path=photos/ --config.embed.clip=CLIP --config.embed.nouns=NOUNS --config.num_clusters=12
CLIP is a directory with `model.safetensors`, `config.json` and `tokenizer.json` (the files of Hugging Face for
openai/clip-vit-base-patch32, or the files of open_clip). NOUNS is the directory of WordNet, or a text file with one
noun per line. --config.num_clusters=auto chooses the number of clusters in `cluster_range`.
"""

from clustering_jax.settings import dxmc


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated embeddings)."""
    photos = {"source": "folder", "path": "", "labels_from_folders": False, "on_error": "skip"}
    return dxmc(variant, num_clusters=10, embed={"splits": {"train": photos}})
