"""The image tower of a CLIP model, in Hugging Face's or open_clip's directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clustering_jax.data.images.preprocessing import Preprocessing
from clustering_jax.encoders.base import Encoder
from clustering_jax.nn.vit.clip_weights import load_clip


def load(path: Path, dtype: Any) -> Encoder:
    """The encoder in the directory `path`, or in the file `path` of such a directory.

    Raises:
      UserError: see `nn.vit.clip_weights.load_clip`.
    """
    clip = load_clip(path, dtype=dtype, texts=False)
    config = clip.config
    size = (config.image_size, config.image_size)
    preprocessing = Preprocessing(size, config.resize, "bicubic", config.mean, config.std)
    return Encoder(clip.name, clip.checksum, clip.params, clip.image_features, preprocessing)
