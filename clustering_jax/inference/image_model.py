"""The pretrained model that embeds images: CLIP, or one of the encoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from clustering_jax.data.images.fit import fit_of
from clustering_jax.encoders import load_encoder
from clustering_jax.errors import UserError
from clustering_jax.nn.vit.clip_weights import Clip, load_clip


class ImageModel(NamedTuple):
    """A pretrained model, as embedding uses it.

    Attributes:
      settings: facts for the manifest, by name; embeddings of other settings are not mixed.
      params: the model's parameters.
      features: ``(params, uint8 [n, h, w, 3]) -> float32 [n, d]``.
      fit: how an image becomes the model's input, as `fit_of` takes it.
      shape: (h, w, 3).
      clip: the whole CLIP model where it is one that embeds nouns, or None.
    """

    settings: dict[str, Any]
    params: Any
    features: Callable[[Any, Any], Any]
    fit: Mapping[str, Any]
    shape: tuple[int, int, int]
    clip: Clip | None = None

    def fitted(self, image: Image.Image) -> np.ndarray:
        """An image as the model's input, uint8 of `shape`."""
        return fit_of(self.fit)(image)


def image_model(clip: str, encoder: str, resize: int, *, texts: bool = False) -> ImageModel:
    """Loads the model that embeds images.

    Args:
      clip: directory of a CLIP model, or "".
      encoder: an encoder that `load_encoder` knows, or "".
      resize: length of the shorter side before the centre is cropped, for `clip`; 0 is the model's own.
      texts: whether nouns are embedded too.

    Raises:
      UserError: none or both of the models are named, the encoder can't do what is asked, or a file can't be read.
    """
    if bool(clip) == bool(encoder):
        raise UserError("name one model that embeds the images: embed.encoder (such as lite0) or embed.clip")
    if not encoder:
        model = load_clip(clip, texts=texts)
        size = model.config.image_size
        settings = {"model": model.name, "checksum": model.checksum, "resize": resize or size, "size": size}
        fit = {"kind": "clip", "size": size, "resize": resize or None}
        return ImageModel(settings, model.params, model.image_features, fit, (size, size, 3), model)
    if resize or texts:
        raise UserError("embed.resize and embed.nouns need embed.clip: an encoder has its own size and no words")
    loaded = load_encoder(encoder)
    settings = {"model": loaded.name, "checksum": loaded.checksum, "resize": loaded.preprocessing.resize}
    settings["size"] = list(loaded.preprocessing.size)
    fit = {"kind": "encoder", **loaded.preprocessing._asdict()}
    return ImageModel(settings, loaded.params, loaded.features, fit, (*loaded.preprocessing.size, 3))
