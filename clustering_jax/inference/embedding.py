"""Embeds images, and nouns for CLIP, once. A later call resumes an interrupted one."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from clustering_jax.data.base import known_labels
from clustering_jax.data.embeddings import MANIFEST
from clustering_jax.data.images.for_embedding import ImageRows, image_rows
from clustering_jax.data.nouns import read_nouns
from clustering_jax.errors import UserError
from clustering_jax.files import read_json, write_atomic, write_json
from clustering_jax.inference.image_model import ImageModel, image_model
from clustering_jax.parallel import data_mesh, replicated
from clustering_jax.training.evaluate import make_infer

# The prompts of TAC, which DXMC uses too.
PROMPTS = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
# Batches between two records of the progress.
CHUNK = 8


def embed(
    output: str | Path,
    *,
    clip: str = "",
    encoder: str = "",
    splits: Mapping[str, Mapping[str, Any]],
    nouns: str = "",
    resize: int = 0,
    batch_size: int = 64,
    cache: str = "",
) -> Path:
    """Embeds what is not embedded yet.

    Args:
      output: the directory to write to. It is created if it does not exist.
      clip: directory of a CLIP model, see `load_clip`.
      encoder: image encoder in place of `clip`, see `load_encoder`. It can't embed nouns.
      splits: the settings of `image_rows` for each split, by name.
      nouns: file of the nouns, see `read_nouns`; "" embeds no nouns.
      resize: length of the shorter side in pixels, before the centre is cropped; 0 is the image size of the model.
      batch_size: images (or prompts) at a time, over all devices, at least 1.
      cache: directory that keeps embedded nouns by checksum, for other outputs; "" keeps none.

    Returns:
      `output` as a path.

    Raises:
      UserError: the model, an image or the nouns can't be read, or `output` holds embeddings of other settings.
    """
    output = Path(output).expanduser()
    if batch_size < 1 or resize < 0:
        raise UserError(f"embed.batch_size is {batch_size} and embed.resize {resize}: choose 1 and 0 or more")
    words = read_nouns(nouns) if nouns else []
    rows = {name: image_rows(**options) for name, options in splits.items()}
    model = image_model(clip, encoder, resize, texts=bool(nouns))
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output} can't be written ({error.strerror}): choose another directory") from error
    manifest = Manifest(output / MANIFEST, model.settings)
    batch_size += -batch_size % jax.device_count()
    embedder = model.embedder(batch_size)
    for name, images in rows.items():
        _embed_split(output, manifest, name, images, model, embedder, batch_size)
    if words:
        directory = Path(cache).expanduser() if cache else None
        params = jax.device_put(model.params, replicated(data_mesh(batch_size)))
        _embed_nouns(output, manifest, words, model.clip, params, batch_size, directory)
    return output


def iter_embedded(images: ImageRows, model: ImageModel, batch_size: int = 64) -> Iterator[tuple[list[str], np.ndarray]]:
    """Embeds images, a few batches at a time, in constant memory.

    Args:
      images: the images.
      model: what embeds them.
      batch_size: as for `embed`.

    Yields:
      ``(ids, float32 [m, d])``.

    Raises:
      UserError: as `embed`; an unreadable image is an error.
    """
    batch_size += -batch_size % jax.device_count()
    embedder = model.embedder(batch_size)
    for start in range(0, len(images.ids), CHUNK * batch_size):
        ids = images.ids[start : start + CHUNK * batch_size]
        yield ids, embedder(np.stack(images.batch(start, start + len(ids), model.fitted)))


class Manifest:
    """manifest.json: what was embedded, and with which model and settings.

    Args:
      path: the file.
      settings: model and settings by name.

    Raises:
      UserError: the file exists and has other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]):
        self.path = path
        self.content = read_json(path) or {**settings, "splits": {}, "nouns": {}}
        for name, value in settings.items():
            if self.content.get(name) != value:
                change = f"{name} {self.content.get(name)!r}, now it is {value!r}"
                raise UserError(f"{path.parent} holds embeddings of {change}: use another directory")

    def add(self, group: str, entry: Mapping[str, Any]) -> None:
        """Records an entry that is complete on disk, in the group "splits" or "nouns"."""
        self.content[group] = {**self.content[group], **entry}
        write_json(self.path, self.content)


def _embed_split(
    output: Path,
    manifest: Manifest,
    name: str,
    images: ImageRows,
    model: ImageModel,
    embedder: Callable[[np.ndarray], np.ndarray],
    batch_size: int,
) -> None:
    mark = _digest(manifest.content["checksum"], manifest.content["resize"], images.ids)
    if manifest.content["splits"].get(name, {}).get("mark") == mark:
        return
    for note in images.notes:
        warnings.warn(note, stacklevel=2)
    failures: dict[int, str] = {}

    def read(start: int, stop: int) -> dict[str, np.ndarray]:
        batch = images.batch(start, stop, model.fitted)
        failures.update({start + i: image for i, image in enumerate(batch) if isinstance(image, str)})
        blank = np.zeros(model.shape, np.uint8)
        return {"image": np.stack([blank if isinstance(image, str) else image for image in batch])}

    path = output / f"{name}.npy"
    _stream(path, mark, len(images.ids), batch_size, read, lambda batch: embedder(batch["image"]), failures)
    kept = np.isfinite(np.load(path, mmap_mode="r")).all(1)
    if not kept.any():
        raise UserError(f"none of the {len(kept)} images of '{name}' can be read: {failures[0]}")
    if not kept.all():
        lost = len(kept) - kept.sum()
        warnings.warn(f"skipped {lost} unreadable of {len(kept)} images of '{name}'", stacklevel=2)
        _save(path, np.load(path)[kept])
    labels = None if images.labels is None else known_labels(images.labels[kept])
    if labels is not None:
        _save(output / f"{name}.labels.npy", labels)
    write_json(output / f"{name}.ids.json", [i for i, keep in zip(images.ids, kept, strict=True) if keep])
    entry = {"mark": mark, "rows": int(kept.sum()), "labels": labels is not None, "sha256": _sha256(path)}
    manifest.add("splits", {name: {**entry, "source": f"{images.name}, {images.split}"}})


def _embed_nouns(
    output: Path, manifest: Manifest, words: list[str], model: Any, params: Any, batch_size: int, cache: Path | None
) -> None:
    mark = _digest(manifest.content["checksum"], PROMPTS, words)
    if manifest.content["nouns"].get("mark") == mark:
        return
    path, kept = output / "nouns.npy", cache / f"nouns-{mark}.npy" if cache else None
    if kept and kept.is_file():
        shutil.copyfile(kept, path)
    else:
        infer, tokenize = (
            make_infer(lambda params, batch: model.text_features(params, batch["ids"]), batch_size),
            model.tokenize,
        )
        assert tokenize is not None  # `load_clip` was called with texts

        def read(start: int, stop: int) -> dict[str, np.ndarray]:
            return {"ids": tokenize([p.format(word) for word in words[start:stop] for p in PROMPTS])}

        def mean(batch: Mapping[str, np.ndarray]) -> np.ndarray:
            prompts = infer(params, batch)
            return prompts.reshape(-1, len(PROMPTS), prompts.shape[1]).mean(1)

        _stream(path, mark, len(words), batch_size, read, mean, {})
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, kept.with_suffix(".part"))
            kept.with_suffix(".part").replace(kept)
    write_atomic(output / "nouns.txt", (f"{word}\n" for word in words))
    manifest.add("nouns", {"mark": mark, "rows": len(words), "prompts": list(PROMPTS), "sha256": _sha256(path)})


def _stream(
    path: Path,
    mark: str,
    n: int,
    batch_size: int,
    read: Callable[[int, int], dict[str, np.ndarray]],
    compute: Callable[[dict[str, np.ndarray]], np.ndarray],
    failures: Mapping[int, str],
) -> None:
    """Computes rows and writes them to a `.npy` file. It resumes an earlier call with the same `mark`.

    Args:
      path: the file.
      mark: digest of everything that the rows depend on.
      n: number of rows.
      batch_size: rows at a time in `compute`, over all devices.
      read: ``(start, stop) -> batch``.
      compute: ``batch -> [m, d]``.
      failures: rows that `read` could not read. They become NaN.

    Raises:
      UserError: a computed row is not finite.
    """
    part, progress = path.with_suffix(".npy.part"), path.with_suffix(".progress.json")
    record = read_json(progress) or {}
    done = record["rows"] if record.get("mark") == mark and part.is_file() else 0
    array = np.lib.format.open_memmap(part, "r+") if done else None
    starts = range(done, n, CHUNK * batch_size)
    waited, began = 0.0, time.monotonic()
    idle = began
    with tqdm(total=n, initial=done, unit="row", desc=path.name, disable=None, dynamic_ncols=True) as bar:
        for start, batch in zip(starts, _ahead(read, starts, n, CHUNK * batch_size), strict=True):
            waited += time.monotonic() - idle
            rows = compute(batch)
            if array is None:
                array = np.lib.format.open_memmap(part, "w+", np.float32, (n, rows.shape[1]))
            stop = start + len(rows)
            if not np.isfinite(rows).all():
                raise UserError(f"{path}: the model gives NaN or infinite numbers: are its weights whole?")
            array[start:stop] = rows
            # NaN marks the unreadable rows for a later call too.
            array[[row for row in failures if start <= row < stop]] = np.nan
            array.flush()
            write_json(progress, {"mark": mark, "rows": stop})
            bar.update(len(rows))
            idle = time.monotonic()
    _warn_if_reading_is_slow(waited, time.monotonic() - began)
    del array
    part.replace(path)
    progress.unlink(missing_ok=True)


def _warn_if_reading_is_slow(waited: float, seconds: float) -> None:
    """Warns if the model waited for more than half of the time, in seconds, although threads read ahead."""
    if seconds > 60 and waited > seconds / 2:
        warnings.warn(
            f"the model waited {waited:.0f} of {seconds:.0f} s for images to be read and decoded: more CPU cores, a "
            "faster disk or smaller files would help",
            stacklevel=2,
        )


def _ahead(read: Callable[[int, int], Any], starts: range, n: int, chunk: int) -> Iterator[Any]:
    """Yields what `read` returns for each chunk. A thread reads the next chunk while the caller uses this one."""
    with ThreadPoolExecutor(1) as pool:
        futures = (pool.submit(read, start, min(start + chunk, n)) for start in starts)
        future = next(futures, None)
        while future is not None:
            batch, future = future.result(), next(futures, None)
            yield batch


def _save(path: Path, array: np.ndarray) -> None:
    partial_path = path.with_suffix(".npy.part")
    with partial_path.open("wb") as file:
        np.save(file, array)
    partial_path.replace(path)


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
