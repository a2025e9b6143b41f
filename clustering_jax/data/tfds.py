"""TensorFlow Datasets, read without TensorFlow from sets prepared in a random-access format."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clustering_jax.data.base import Dataset, known_labels, row_ids
from clustering_jax.data.images import fit_image
from clustering_jax.errors import UserError, nearest

DEFAULT_DIR = "~/tensorflow_datasets"
FORMATS = ("array_record", "parquet")
CHUNK = 256


def tfds(
    name: str,
    splits: str = "train",
    *,
    tfds_dir: str = "",
    image_key: str = "image",
    label_key: str = "label",
    size: int = 0,
) -> Dataset:
    """A prepared TFDS set, decoded by threads to uint8 ``[n, h, w, c]``.

    Args:
      name: as TFDS calls it, ``"cifar10"``, also with a version, ``"cifar10:3.0.2"`` (default: the newest).
      splits: joined by "+" and read in that order, ``"train+test"``; slices too, ``"test[:1000]"``.
      tfds_dir: where prepared sets are; "" is `DEFAULT_DIR`.
      image_key, label_key: features of the set; a `label_key` of "" reads no labels.
      size: side to resize to, for sets of mixed sizes; 0 keeps the images as they are.

    Returns:
      The rows of the splits in stored order; ids are row numbers over all of them. Labels are None where
      all are negative, as in an unlabelled split.

    Raises:
      UserError: the set is not prepared there or not for random access (the message has the command), is
        damaged, or has no such split or feature; images of several sizes.
    """
    root = _prepared(name, Path(tfds_dir or DEFAULT_DIR).expanduser(), tfds_dir)
    builder = _builder(root)
    channels = _check_features(root, builder.info.features, image_key, label_key)
    sources = [_open(builder, root, part.strip(), image_key) for part in splits.split("+")]
    n = sum(len(source) for source in sources)
    labels = np.full(n, -1, np.int64)
    images = np.empty((0, 0, 0, channels), np.uint8)
    for row, (image, example) in enumerate(_decoded(sources, root, image_key, channels, size)):
        if row == 0:
            images = np.empty((n, *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise UserError(f"{root} has images of several sizes, row {row} is {image.shape}: set size to resize them")
        images[row] = image
        labels[row] = example[label_key] if label_key else -1
    return Dataset({"image": images}, row_ids(n), known_labels(labels), name, splits)


def _prepared(name: str, parent: Path, tfds_dir: str) -> Path:
    """The directory of the newest version that can be read at random."""
    base, _, version = name.partition(":")
    found = [info for info in (parent / base).glob("*/dataset_info.json") if version in ("", info.parent.name)]
    usable = [info.parent for info in found if _format(info) in FORMATS]
    if not usable:
        state = f"prepared as {_format(found[0])}, which needs TensorFlow to read" if found else "not prepared"
        flag = f" --tfds_dir={tfds_dir}" if tfds_dir else ""
        where = " (delete it first)" if found else ""
        raise UserError(
            f"{name} is {state} in {parent}{where}: run once: "
            f'pip install "clustering_jax[prepare]" && python -m clustering_jax.data.prepare {name}{flag}'
        )
    return max(usable, key=lambda path: [int(p) if p.isdigit() else -1 for p in path.name.split(".")])


def _format(info: Path) -> str:
    try:
        return json.loads(info.read_text(encoding="utf-8")).get("fileFormat", "tfrecord")
    except (OSError, ValueError) as error:
        raise UserError(f"{info} can't be read, it is damaged ({error}): prepare the set again") from error


def _builder(root: Path) -> Any:
    # Importing it takes a second, and only this source needs it.
    import tensorflow_datasets

    try:
        return tensorflow_datasets.builder_from_directory(root)
    except Exception as error:  # of a broken features.json or an unknown class: nearly anything
        raise UserError(f"{root} can't be read, it is damaged ({_line(error)}): prepare the set again") from error


def _check_features(root: Path, features: Any, image_key: str, label_key: str) -> int:
    """The channels of the images, after a look at the types."""
    import tensorflow_datasets

    for key in filter(None, (image_key, label_key)):
        if key not in features:
            raise UserError(f"{root} has no feature '{key}'{nearest(key, features)}")
    image, label = features[image_key], features[label_key] if label_key else None
    if not isinstance(image, tensorflow_datasets.features.Image) or image.np_dtype != np.uint8:
        raise UserError(f"{root} feature '{image_key}' is not an 8-bit image: choose another image_key")
    if label is not None and (label.shape != () or not np.issubdtype(label.np_dtype, np.integer)):
        raise UserError(f"{root} feature '{label_key}' is not a class number: choose another label_key")
    return 1 if image.shape[-1] == 1 else 3


def _open(builder: Any, root: Path, split: str, image_key: str) -> Any:
    """Random access to the examples of a split, images still encoded.

    TFDS would decode by OpenCV where that is installed, which makes other pixels of a JPEG than Pillow does.
    """
    import tensorflow_datasets

    try:
        skip = {image_key: tensorflow_datasets.decode.SkipDecoding()}
        return builder.as_data_source(split=split, decoders=skip)
    except Exception as error:
        known = ", ".join(builder.info.splits)
        raise UserError(f"{root} has no split '{split}' (known: {known}) or can't be read ({_line(error)})") from error


def _decoded(
    sources: list[Any], root: Path, image_key: str, channels: int, size: int
) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """``(image, example)`` of every row of every source."""

    def decode(example: dict[str, Any]) -> np.ndarray:
        with Image.open(io.BytesIO(example[image_key])) as image:
            height, width = (size, size) if size else (image.height, image.width)
            return fit_image(image, (height, width, channels))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for source in sources:
            for start in range(0, len(source), CHUNK):
                rows = list(range(start, min(start + CHUNK, len(source))))
                try:
                    examples = source.__getitems__(rows)
                    images = list(pool.map(decode, examples))
                except Exception as error:  # array_record: RuntimeError and others; Pillow: nearly anything
                    where = f"{root} split '{source.split}', rows {rows[0]} to {rows[-1]}"
                    raise UserError(f"{where} can't be read ({_line(error)}): prepare the set again") from error
                yield from zip(images, examples, strict=True)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
