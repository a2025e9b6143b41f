"""How a picture becomes the input of a pretrained model, as data that JSON holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from clustering_jax.data.images.for_clip import clip_image
from clustering_jax.data.images.preprocessing import Preprocessing, preprocess


def fit_of(description: Mapping[str, Any]) -> Callable[[Image.Image], np.ndarray]:
    """The function that a description stands for.

    Args:
      description: "kind" "clip" and the arguments of `clip_image`, or "kind" "encoder" and the fields of
        `Preprocessing`.

    Returns:
      ``image -> uint8 [h, w, 3]``.
    """
    options = {name: value for name, value in description.items() if name != "kind"}
    if description["kind"] == "clip":
        return partial(clip_image, **options)
    return partial(preprocess, settings=Preprocessing(**options))
