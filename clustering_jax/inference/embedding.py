"""Embeds images, and nouns for CLIP, once. A later call resumes an interrupted one."""

from __future__ import annotations

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
from clustering_jax.files import output_directory, read_json, replace, write_atomic, write_json, writing
from clustering_jax.inference.embedding_files import Manifest, created, digest, resumed, save, sha256
from clustering_jax.inference.image_model import ImageModel, image_model
from clustering_jax.parallel import data_mesh, replicated
from clustering_jax.training.evaluate import make_infer
from clustering_jax.training.lock import locked

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
    output = output_directory(output, "--output")
    if batch_size < 1 or resize < 0:
        raise UserError(f"embed.batch_size is {batch_size} and embed.resize {resize}: choose 1 and 0 or more")
    words = read_nouns(nouns) if nouns else []
    rows = {name: image_rows(**options) for name, options in splits.items()}
    model = image_model(clip, encoder, resize, texts=bool(nouns))
    batch_size += -batch_size % jax.device_count()
    with locked(output, "--output"):
        manifest = Manifest(output / MANIFEST, model.settings)
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


def _embed_split(
    output: Path,
    manifest: Manifest,
    name: str,
    images: ImageRows,
    model: ImageModel,
    embedder: Callable[[np.ndarray], np.ndarray],
    batch_size: int,
) -> None:
    known = None if images.labels is None else images.labels.tolist()
    mark = digest(manifest.content["checksum"], manifest.content["resize"], images.ids, images.mark(), known)
    if manifest.is_whole("splits", name, mark):
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
        save(path, np.load(path)[kept])
    labels = None if images.labels is None else known_labels(images.labels[kept])
    if labels is not None:
        save(output / f"{name}.labels.npy", labels)
    write_json(output / f"{name}.ids.json", [i for i, keep in zip(images.ids, kept, strict=True) if keep])
    entry = {"mark": mark, "rows": int(kept.sum()), "labels": labels is not None, "sha256": sha256(path)}
    beside = [f"{name}.ids.json", *([f"{name}.labels.npy"] if labels is not None else [])]
    sums = {file: sha256(output / file) for file in beside}
    manifest.add("splits", {name: {**entry, "source": f"{images.name}, {images.split}", "files": sums}})


def _embed_nouns(
    output: Path, manifest: Manifest, words: list[str], model: Any, params: Any, batch_size: int, cache: Path | None
) -> None:
    mark = digest(manifest.content["checksum"], PROMPTS, words)
    if manifest.is_whole("nouns", "", mark):
        return
    path, kept = output / "nouns.npy", cache / f"nouns-{mark}.npy" if cache else None
    if not (kept and _copied(kept, path)):
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
            with writing(kept):
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, kept.with_suffix(".part"))
            replace(kept.with_suffix(".part"), kept)
            write_atomic(kept.with_suffix(".sha256"), [sha256(path)])
    write_atomic(output / "nouns.txt", (f"{word}\n" for word in words))
    entry = {"mark": mark, "rows": len(words), "prompts": list(PROMPTS), "sha256": sha256(path)}
    manifest.add("nouns", {**entry, "files": {"nouns.txt": sha256(output / "nouns.txt")}})


def _copied(kept: Path, path: Path) -> bool:
    """Copies embedded nouns from the cache; returns whether they are there, and are what was written."""
    expected = kept.with_suffix(".sha256")
    if not (kept.is_file() and expected.is_file()) or sha256(kept) != expected.read_text(errors="replace"):
        return False
    with writing(path):
        shutil.copyfile(kept, path)
    return True


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
    array, done, sums = resumed(part, read_json(progress, dict) or {}, mark, n)
    starts = range(done, n, CHUNK * batch_size)
    waited, began = 0.0, time.monotonic()
    idle = began
    with tqdm(total=n, initial=done, unit="row", desc=path.name, disable=None, dynamic_ncols=True) as bar:
        for start, batch in zip(starts, _ahead(read, starts, n, CHUNK * batch_size), strict=True):
            waited += time.monotonic() - idle
            rows = compute(batch)
            if array is None:
                with writing(part):
                    array = created(part, (n, rows.shape[1]))
            stop = start + len(rows)
            if not np.isfinite(rows).all():
                raise UserError(f"{path}: the model gives NaN or infinite numbers: are its weights whole?")
            array[start:stop] = rows
            # NaN marks the unreadable rows for a later call too.
            array[[row for row in failures if start <= row < stop]] = np.nan
            with writing(part):
                array.flush()
            sums.update(array[start:stop].tobytes())
            write_json(progress, {"mark": mark, "rows": stop, "digest": sums.hexdigest()})
            bar.update(len(rows))
            idle = time.monotonic()
    _warn_if_reading_is_slow(waited, time.monotonic() - began)
    del array
    replace(part, path)
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
