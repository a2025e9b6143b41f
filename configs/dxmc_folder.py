"""DXMC on a folder of your own photos with a CLIP model and a list of nouns: clusters with names.

Paper: https://arxiv.org/abs/2409.04561
Expected: no published figure; see the names in clusters.json, and the label-free scores in result.json.
Minutes: some 30 photos a second with CLIP ViT-B/32 on 2 CPU cores, an estimate; training less than a minute.
Command: python -m clustering_jax.main --config=configs/dxmc_folder.py --workdir=runs/photos \
  --config.embed.splits.train.path=photos/ --config.embed.clip=CLIP --config.embed.nouns=NOUNS --config.num_clusters=12
CLIP: a directory with `model.safetensors`, `config.json` and `tokenizer.json` (Hugging Face's files of
openai/clip-vit-base-patch32, or open_clip's). NOUNS: WordNet's directory, or a text file with one noun a line.
--config.num_clusters=auto chooses in `cluster_range`.
"""

from clustering_jax.settings import dxmc


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated embeddings)."""
    photos = {"source": "folder", "path": "", "labels_from_folders": False, "on_error": "skip"}
    return dxmc(variant, num_clusters=10, embed={"splits": {"train": photos}})
