"""Reads TensorFlow Datasets without TensorFlow, from sets that were prepared in a random-access format."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from clustering_jax.data.base import Dataset, blocks_of, known_labels, row_ids
from clustering_jax.data.images.decode import PICTURE_FORMATS, fit_image
from clustering_jax.data.images.streaming import LazyArray, load_grain
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
    streaming: bool = False,
    shuffle_block: int = 0,
    shuffle_window: int = 16,
) -> Dataset:
    """Reads a prepared TFDS set. Threads decode the images to uint8 ``[n, h, w, c]``.

    Args:
      name: the name of the set in TFDS, ``"cifar10"``, with or without a version, ``"cifar10:3.0.2"``. The default
        version is the newest one.
      splits: names joined by "+" and read in that order, ``"train+test"``. Slices work too, ``"test[:1000]"``.
      tfds_dir: directory of the prepared sets; "" is `DEFAULT_DIR`.
      image_key: feature that holds the images.
      label_key: feature that holds the labels; "" reads no labels.
      size: side to resize to in pixels, for sets of mixed sizes; 0 keeps the sizes.
      streaming: read each image when a batch needs it. The pixels are the same as without it. The labels are read
        at the start, which fetches every record once but decodes no image.
      shuffle_block: rows per block of the block shuffle, see `clustering_jax.data.base.Blocks`; 0 is a full shuffle.
      shuffle_window: number of blocks that are mixed with each other, at least 1.

    Returns:
      The rows of the splits in stored order. The ids are row numbers over all splits. The labels are None if all are
      negative, as in an unlabelled split.

    Raises:
      UserError: the set is not prepared, or not for random access (the message has the command for it); it is
        damaged, or has no such split or feature; or the images have several sizes.
    """
    root = _prepared(name, Path(tfds_dir or DEFAULT_DIR).expanduser(), tfds_dir)
    builder = _builder(root)
    channels = _check_features(root, builder.info.features, image_key, label_key)
    sources = [_open(builder, root, part.strip(), image_key) for part in splits.split("+")]
    rows = _Rows(sources, root, image_key, label_key, channels, size)
    blocks = blocks_of(shuffle_block, shuffle_window)
    images, labels = rows.streamed() if streaming else rows.in_memory()
    return Dataset({"image": images}, row_ids(len(images)), known_labels(labels), name, splits, blocks=blocks)


def _prepared(name: str, parent: Path, tfds_dir: str) -> Path:
    """Returns the directory of the newest version that allows random access."""
    base, _, version = name.partition(":")
    infos = [info for info in (parent / base).glob("*/dataset_info.json") if version in ("", info.parent.name)]
    usable = [info.parent for info in infos if _format(info) in FORMATS]
    if not usable:
        state = f"prepared as {_format(infos[0])}, which needs TensorFlow to read" if infos else "not prepared"
        flag = f" --tfds_dir={tfds_dir}" if tfds_dir else ""
        where = " (delete it first)" if infos else ""
        raise UserError(
            f"{name} is {state} in {parent}{where}: run once: "
            f'pip install "clustering_jax[prepare]" && python -m clustering_jax.data.images.prepare {name}{flag}'
        )
    return max(usable, key=lambda path: [int(p) if p.isdigit() else -1 for p in path.name.split(".")])


def _format(info: Path) -> str:
    try:
        return json.loads(info.read_text(encoding="utf-8")).get("fileFormat", "tfrecord")
    except (OSError, ValueError) as error:
        raise UserError(f"{info} can't be read, it is damaged ({error}): prepare the set again") from error


def _builder(root: Path) -> Any:
    library = _library()
    try:
        return library.builder_from_directory(root)
    except Exception as error:  # a broken features.json or an unknown class raises nearly anything
        raise UserError(f"{root} can't be read, it is damaged ({_line(error)}): prepare the set again") from error


def _library() -> Any:
    """TensorFlow Datasets. The import takes a second, and only this source needs it."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise UserError(
            f"data source 'tfds' needs TensorFlow Datasets ({error}): pip install \"clustering_jax[tfds]\""
        ) from error
    return tensorflow_datasets


def _check_features(root: Path, features: Any, image_key: str, label_key: str) -> int:
    """Checks the types of both features and returns the number of image channels."""
    for key in filter(None, (image_key, label_key)):
        if key not in features:
            raise UserError(f"{root} has no feature '{key}'{nearest(key, features)}")
    image, label = features[image_key], features[label_key] if label_key else None
    if not isinstance(image, _library().features.Image) or image.np_dtype != np.uint8:
        raise UserError(f"{root} feature '{image_key}' is not an 8-bit image: choose another image_key")
    if label is not None and (label.shape != () or not np.issubdtype(label.np_dtype, np.integer)):
        raise UserError(f"{root} feature '{label_key}' is not a class number: choose another label_key")
    return 1 if image.shape[-1] == 1 else 3


def _open(builder: Any, root: Path, split: str, image_key: str) -> Any:
    """Returns random access to the examples of a split. The images are still encoded.

    If OpenCV is installed, TFDS decodes with it, and then the pixels of a JPEG differ from Pillow's.
    """
    try:
        skip = {image_key: _library().decode.SkipDecoding()}
        return builder.as_data_source(split=split, decoders=skip)
    except Exception as error:
        known = ", ".join(builder.info.splits)
        raise UserError(f"{root} has no split '{split}' (known: {known}) or can't be read ({_line(error)})") from error


class _Rows(NamedTuple):
    """The examples of several sources in a row, with images resized to `size` (0 keeps their sizes)."""

    sources: list[Any]
    root: Path
    image_key: str
    label_key: str
    channels: int
    size: int

    def in_memory(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns images, uint8 [n, h, w, c], and labels, int64 [n], which are -1 if there are no labels."""
        labels, images = self._no_labels(), np.empty((0, 0, 0, self.channels), np.uint8)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            first = 0
            for source, rows in self._chunks():
                with self._reading(source, rows):
                    examples = source.__getitems__(rows)
                    decoded = list(pool.map(self._decode, examples))
                if first == 0:
                    images = np.empty((len(labels), *decoded[0].shape), np.uint8)
                for row, image in enumerate(decoded, start=first):
                    images[row] = self._checked(image, row, images.shape[1:])
                labels[first : first + len(rows)] = self._labels_of(examples)
                first += len(rows)
        return images, labels

    def streamed(self) -> tuple[LazyArray, np.ndarray]:
        """Returns the same as `in_memory`, but the images are read on demand."""
        load_grain()
        labels, first = self._no_labels(), 0
        for source, rows in self._chunks() if self.label_key else ():
            with self._reading(source, rows):
                labels[first : first + len(rows)] = self._labels_of(source.__getitems__(rows))
            first += len(rows)
        ends = np.cumsum([len(source) for source in self.sources])
        shape = self._image(self.sources[0], 0).shape

        def read(rows: np.ndarray) -> Iterator[np.ndarray]:
            for row in rows:
                part = int(np.searchsorted(ends, row, side="right"))
                image = self._image(self.sources[part], int(row - ends[part]) + len(self.sources[part]))
                yield self._checked(image, row, shape)

        return LazyArray((len(labels), *shape), read), labels

    def _no_labels(self) -> np.ndarray:
        return np.full(sum(len(source) for source in self.sources), -1, np.int64)

    def _chunks(self) -> Iterator[tuple[Any, list[int]]]:
        for source in self.sources:
            for start in range(0, len(source), CHUNK):
                yield source, list(range(start, min(start + CHUNK, len(source))))

    def _labels_of(self, examples: Sequence[Mapping[str, Any]]) -> list[int]:
        return [example[self.label_key] if self.label_key else -1 for example in examples]

    def _image(self, source: Any, row: int) -> np.ndarray:
        with self._reading(source, [row]):
            return self._decode(source[row])

    def _decode(self, example: Mapping[str, Any]) -> np.ndarray:
        with Image.open(io.BytesIO(example[self.image_key]), formats=PICTURE_FORMATS) as image:
            height, width = (self.size, self.size) if self.size else (image.height, image.width)
            return fit_image(image, (height, width, self.channels))

    def _checked(self, image: np.ndarray, row: int, shape: tuple[int, ...]) -> np.ndarray:
        if image.shape != shape:
            where = f"{self.root} has images of several sizes, row {row} is {image.shape}"
            raise UserError(f"{where}: set size to resize them")
        return image

    @contextmanager
    def _reading(self, source: Any, rows: list[int]) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # array_record raises RuntimeError and others; Pillow raises nearly anything
            where = f"{self.root} split '{source.split}', rows {rows[0]} to {rows[-1]}"
            raise UserError(f"{where} can't be read ({_line(error)}): prepare the set again") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
