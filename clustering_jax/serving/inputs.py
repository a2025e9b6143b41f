"""What an exported model takes: arrays by name as a user has them, and the features that they become."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from clustering_jax.data.embeddings import unit_rows
from clustering_jax.data.images.arrays import as_images
from clustering_jax.data.images.folder import fit_rows
from clustering_jax.data.views.files import Source
from clustering_jax.data.views.new_rows import new_rows
from clustering_jax.errors import UserError, nearest


def preprocessing(
    shapes: Mapping[str, tuple[int, ...]], scalings: Mapping[str, Any] | None, data: Mapping[str, Any]
) -> dict[str, Any]:
    """What `Inputs.of` reads, as JSON keeps it. Views that the training did not scale are taken as they are.

    shapes: of one example of each feature. data: options of the training's data.
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

    shapes: of one example of each feature. scalings: of views, as `apply_scalings` takes them. missing: of views, as
    for `multiview`.
    """

    shapes: dict[str, tuple[int, ...]]
    scalings: dict[str, dict[str, Any]]
    missing: str

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Inputs:
        """From what `preprocessing` returned."""
        shapes = {name: tuple(shape) for name, shape in found["shapes"].items()}
        return cls(shapes, _numbers(found["scalings"] or {}), found["missing"])

    @property
    def kind(self) -> str:
        """ "images", "embeddings" or "views"."""
        return "views" if "image" not in self.shapes else "images" if len(self.shapes["image"]) == 3 else "embeddings"

    def signature(self, n: Any) -> dict[str, jax.ShapeDtypeStruct]:
        """The features of `n` rows; with views always the mask, so that any subset of them will do."""
        dtype = np.uint8 if self.kind == "images" else np.float32
        found = {name: jax.ShapeDtypeStruct((n, *shape), dtype) for name, shape in self.shapes.items()}
        mask = {"mask": jax.ShapeDtypeStruct((n, len(found)), bool)} if self.kind == "views" else {}
        return {**found, **mask}

    def told(self) -> dict[str, dict[str, Any]]:
        """Type and shape of the arrays by name, for people."""
        if self.kind == "images":
            return {"image": {"dtype": "uint8, or float in [0, 1]", "shape": ["n", *self.shapes["image"]]}}
        if self.kind == "embeddings":
            return {"image": {"dtype": "float", "shape": ["n", *self.shapes["image"]]}}
        columns = {name: self.scalings[name]["columns"] for name in self.shapes}
        return {name: {"dtype": "number", "shape": ["n", width]} for name, width in columns.items()}

    def features(self, arrays: Mapping[str, np.ndarray], origin: str) -> dict[str, np.ndarray]:
        """The features of n rows, as `signature` has them.

        Args:
          arrays: "image", uint8 or float in [0, 1] [n, h, w] or [n, h, w, c] of any size, which is resized, or
            embeddings [n, d]; or "view0", "view1", ... [n, d_v] before scaling, all or some, with them perhaps "mask"
            [n, views]. origin: what messages call them.

        Raises:
          UserError: arrays that are unknown, missing, empty, of a wrong type or shape, or not finite.
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
            return {"image": fit_rows(as_images(array, origin), self.shapes["image"])}
        if array.ndim == 2 and array.shape[1:] != self.shapes["image"]:
            raise UserError(f"{origin} has {array.shape[1]} columns, the model takes {self.shapes['image'][0]}")
        return {"image": unit_rows(array, origin)}

    def _views(self, arrays: Mapping[str, np.ndarray], origin: str) -> dict[str, np.ndarray]:
        source = Source(origin, Path(), True, {name: lambda array=array: array for name, array in arrays.items()})
        numbers = sorted(int(name.removeprefix("view")) for name in arrays if name != "mask")
        options = {"views": [f"view{v}" for v in range(len(self.shapes))], "missing": self.missing}
        options |= {"mask_key": "mask"} if "mask" in arrays else {}
        found = new_rows(source, options, self.scalings, numbers).features
        n = len(found[f"view{numbers[0]}"])
        features = {name: np.zeros(like.shape, like.dtype) for name, like in self.signature(n).items()}
        features["mask"][:, numbers] = found["mask"][:, numbers] if "mask" in found else True
        return {**features, **{name: rows for name, rows in found.items() if name != "mask"}}


def _numbers(scalings: Mapping[str, Any]) -> dict[str, Any]:
    """The lists as arrays, once and not for every request."""
    return {
        name: _numbers(value) if isinstance(value, Mapping) else np.asarray(value) if isinstance(value, list) else value
        for name, value in scalings.items()
    }
