"""The pretrained model that embeds images: CLIP, or one of the encoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from clustering_jax.data.embeddings import MANIFEST
from clustering_jax.data.images.fit import fit_of
from clustering_jax.encoders import load_encoder
from clustering_jax.errors import UserError
from clustering_jax.files import read_json
from clustering_jax.nn.vit.clip_weights import Clip, load_clip
from clustering_jax.parallel import data_mesh, replicated
from clustering_jax.training.evaluate import make_infer


class ImageModel(NamedTuple):
    """A pretrained model, as embedding uses it.

    Attributes:
      settings: facts for the manifest, by name; embeddings of other settings are not mixed.
      params: the model's parameters.
      features: ``(params, uint8 [n, h, w, 3]) -> float32 [n, d]``, a pure function of JAX if `compiled`.
      fit: how an image becomes the model's input, as `fit_of` takes it.
      shape: (h, w, 3).
      clip: the whole CLIP model where it is one that embeds nouns, or None.
      compiled: as in `Encoder`.
    """

    settings: dict[str, Any]
    params: Any
    features: Callable[[Any, Any], Any]
    fit: Mapping[str, Any]
    shape: tuple[int, int, int]
    clip: Clip | None = None
    compiled: bool = True

    def fitted(self, image: Image.Image) -> np.ndarray:
        """An image as the model's input, uint8 of `shape`."""
        return fit_of(self.fit)(image)

    def embedder(self, batch_size: int) -> Callable[[np.ndarray], np.ndarray]:
        """``uint8 [n, h, w, 3] -> float32 [n, d]`` for any n.

        Args:
          batch_size: images at a time over all devices, a multiple of their number.
        """
        if not self.compiled:
            return partial(_in_batches, partial(self.features, self.params), batch_size)
        params = jax.device_put(self.params, replicated(data_mesh(batch_size)))
        infer = make_infer(lambda params, batch: self.features(params, batch["image"]), batch_size)
        return lambda images: infer(params, {"image": images})


def _in_batches(function: Callable[[np.ndarray], np.ndarray], batch_size: int, images: np.ndarray) -> np.ndarray:
    return np.concatenate([function(images[i : i + batch_size]) for i in range(0, len(images), batch_size)])


def image_model_of(config: Mapping[str, Any]) -> ImageModel | None:
    """The model that embedded the photos of a run; None if the run embedded none.

    Args:
      config: the config of the run, as its checkpoints hold it.

    Raises:
      UserError: see `image_model`; or the weights are not those of the embeddings that the run was trained on.
    """
    embed = config.get("embed") or {}
    if not (embed.get("clip") or embed.get("encoder")):
        return None
    model = image_model(embed["clip"], embed["encoder"], embed["resize"])
    path = Path(str(config["data"].get("path") or "")) / MANIFEST
    trained = (read_json(path) if path.is_file() else None) or model.settings
    if trained["checksum"] != model.settings["checksum"]:
        source = embed["clip"] or embed["encoder"]
        raise UserError(f"{source} has other weights than the model that embedded {path.parent}: bring its files back")
    return model


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
    shape = (*loaded.preprocessing.size, 3)
    return ImageModel(settings, loaded.params, loaded.features, fit, shape, compiled=loaded.compiled)
