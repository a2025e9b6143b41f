"""The inputs of an exported model: turns the arrays of a user into the features that the network takes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from clustering_jax.data.embeddings import unit_rows
from clustering_jax.data.images.arrays import as_images
from clustering_jax.data.images.decode import fit_image
from clustering_jax.data.images.fit import fit_of
from clustering_jax.data.views.files import Source
from clustering_jax.data.views.new_rows import new_rows
from clustering_jax.errors import UserError, nearest


def preprocessing(
    shapes: Mapping[str, tuple[int, ...]], scalings: Mapping[str, Any] | None, data: Mapping[str, Any]
) -> dict[str, Any]:
    """Describes the preprocessing of a model as JSON data for `Inputs.from_preprocessing`.

    Args:
      shapes: per-example shape of each feature.
      scalings: fitted scaling of each view. If None, views are not scaled.
      data: the config of the training data.

    Returns:
      The shapes, the scalings, and what to do with missing views.
    """
    kept = {"image": shapes["image"]} if "image" in shapes else {k: v for k, v in shapes.items() if k != "mask"}
    if scalings is None and "image" not in kept:
        scalings = {name: {"kind": "none", "columns": shape[0]} for name, shape in kept.items()}
    return {
        "shapes": {name: list(shape) for name, shape in kept.items()},
        "scalings": scalings,
        "missing": data.get("missing", "error"),
    }


class Inputs(NamedTuple):
    """The inputs of one model.

    Attributes:
      shapes: per-example shape of each feature.
      scalings: fitted scaling of each view, as `apply_scalings` takes it.
      missing: what to do with a missing view, as in the config of multi-view data.
      fit: how an image becomes the input of the encoder inside the model, see `fit_of`; None resizes it.
    """

    shapes: dict[str, tuple[int, ...]]
    scalings: dict[str, dict[str, Any]]
    missing: str
    fit: Mapping[str, Any] | None = None

    @classmethod
    def from_preprocessing(cls, description: Mapping[str, Any]) -> Inputs:
        """Creates the inputs from the result of `preprocessing`."""
        shapes = {name: tuple(shape) for name, shape in description["shapes"].items()}
        return cls(shapes, _as_arrays(description["scalings"] or {}), description["missing"], description.get("fit"))

    @property
    def kind(self) -> str:
        """The kind of data: "images", "embeddings" or "views"."""
        return "views" if "image" not in self.shapes else "images" if len(self.shapes["image"]) == 3 else "embeddings"

    def signature(self, n: Any) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of each feature.

        Args:
          n: number of rows; an integer or a symbolic dimension.

        Returns:
          One entry per feature. With views there is always a "mask" [n, views], so that any subset of the views can be
          given.
        """
        dtype = np.uint8 if self.kind == "images" else np.float32
        features = {name: jax.ShapeDtypeStruct((n, *shape), dtype) for name, shape in self.shapes.items()}
        mask = {"mask": jax.ShapeDtypeStruct((n, len(features)), bool)} if self.kind == "views" else {}
        return {**features, **mask}

    def describe(self) -> dict[str, dict[str, Any]]:
        """Dtype and shape of each accepted array as text, for people."""
        if self.kind == "images":
            size = ["height", "width", 3] if self.fit else self.shapes["image"]
            return {"image": {"dtype": "uint8, or float in [0, 1]", "shape": ["n", *size]}}
        if self.kind == "embeddings":
            return {"image": {"dtype": "float", "shape": ["n", *self.shapes["image"]]}}
        columns = {name: self.scalings[name]["columns"] for name in self.shapes}
        return {name: {"dtype": "number", "shape": ["n", width]} for name, width in columns.items()}

    def features(self, arrays: Mapping[str, np.ndarray], origin: str) -> dict[str, np.ndarray]:
        """Checks and preprocesses the arrays of a user.

        Args:
          arrays: arrays by name. A model of images takes "image": uint8, or float in [0, 1], [n, h, w] or [n, h, w, c],
            of any height and width (images are resized). A model of embeddings takes "image": [n, d]. A model of views
            takes some or all of "view0", "view1", ...: [n, d_v] before scaling, and optionally "mask": [n, views].
          origin: how error messages call the source of the arrays.

        Returns:
          The features as in `signature`.

        Raises:
          UserError: an array is unknown, missing or empty, has a wrong dtype or shape, or is not finite.
        """
        known = [*self.shapes, *(["mask"] if self.kind == "views" else [])]
        for name in arrays:
            if name not in known:
                raise UserError(f"{origin} has '{name}', which the model does not take{nearest(name, known)}")
        if not set(arrays).intersection(self.shapes):
            raise UserError(f"{origin} has no array that the model takes: send {', '.join(self.shapes)}")
        if self.kind == "views":
            return self._views(arrays, origin)
        origin, array = f"{origin} ['image']", arrays["image"]
        if self.kind == "images":
            rows = as_images(array, origin)
            if not self.fit and rows.shape[1:] == self.shapes["image"]:
                return {"image": rows}
            pictures = (Image.fromarray(row[..., 0] if row.shape[2] == 1 else row) for row in rows)
            return {"image": np.stack([self.image(picture) for picture in pictures])}
        if array.ndim == 2 and array.shape[1:] != self.shapes["image"]:
            raise UserError(f"{origin} has {array.shape[1]} columns, the model takes {self.shapes['image'][0]}")
        return {"image": unit_rows(array, origin)}

    def image(self, picture: Image.Image) -> np.ndarray:
        """One picture as the model takes it, uint8 of the shape of "image"."""
        return fit_of(self.fit)(picture) if self.fit else fit_image(picture, self.shapes["image"])

    def _views(self, arrays: Mapping[str, np.ndarray], origin: str) -> dict[str, np.ndarray]:
        readers: dict[str, Any] = {name: partial(np.asarray, array) for name, array in arrays.items()}
        source = Source(origin, Path(), True, readers)
        numbers = sorted(int(name.removeprefix("view")) for name in arrays if name != "mask")
        options = {"views": [f"view{v}" for v in range(len(self.shapes))], "missing": self.missing}
        options |= {"mask_key": "mask"} if "mask" in arrays else {}
        views = new_rows(source, options, self.scalings, numbers).features
        n = len(views[f"view{numbers[0]}"])
        features = {name: np.zeros(like.shape, like.dtype) for name, like in self.signature(n).items()}
        features["mask"][:, numbers] = views["mask"][:, numbers] if "mask" in views else True
        return {**features, **{name: rows for name, rows in views.items() if name != "mask"}}


def _as_arrays(scalings: Mapping[str, Any]) -> dict[str, Any]:
    """Converts lists to arrays, once per model instead of once per request."""
    arrays: dict[str, Any] = {}
    for name, value in scalings.items():
        if isinstance(value, Mapping):
            arrays[name] = _as_arrays(value)
        else:
            arrays[name] = np.asarray(value) if isinstance(value, list) else value
    return arrays
