"""The data of a run: embeds what a config names, loads its streams, and chooses the number of clusters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from clustering_jax import data
from clustering_jax.data.base import Dataset
from clustering_jax.errors import UserError
from clustering_jax.files import read_json
from clustering_jax.inference.embedding import embed
from clustering_jax.kmeans import number_of_clusters
from clustering_jax.parallel import is_first

CHOSEN = "num_clusters.json"


def with_embeddings(config: dict[str, Any], workdir: Path) -> dict[str, Any]:
    """The config with the path of the embeddings. If it names a model but no path, they are computed in the workdir.

    Args:
      config: the config of a run.
      workdir: directory of the run.

    Raises:
      UserError: there is nothing to embed, or the images can't be embedded.
    """
    config = _of_photos(config)
    settings, path = config.get("embed"), config["data"].get("path", "")
    if not settings or "path" not in config["data"]:
        return config
    if not path and not (settings["clip"] or settings["encoder"]):
        raise UserError(
            "nothing to cluster: give --config.data.path (embeddings) or --config.embed.clip (a CLIP model)"
        )
    if not path and jax.process_count() > 1:
        raise UserError(
            "several processes can't embed images: run python -m clustering_jax.embed --config=FILE --output=DIR "
            "first, then use --config.data.path=DIR"
        )
    path = path or str(embed(workdir / "embeddings", **settings))
    scored = {**config["scored"], "path": config["scored"].get("path") or path} if config["scored"] else {}
    return {**config, "data": {**config["data"], "path": path}, "scored": scored}


def _of_photos(config: dict[str, Any]) -> dict[str, Any]:
    """Turns the data source "photos" into embeddings that are to be computed from a folder."""
    if config["data"].get("source") != "photos":
        return config
    if not config["data"]["path"]:
        raise UserError("there are no photos to cluster: give --config.data.path=FOLDER")
    folder = {**config["data"], "source": "folder"}
    embed = {**config["embed"], "splits": {"train": folder}}
    return {**config, "data": {"source": "embeddings", "path": "", "split": "train"}, "embed": embed}


def load_streams(config: Mapping[str, Any]) -> dict[str, Dataset]:
    """Loads the data sets of a config.

    Args:
      config: the config of the run.

    Returns:
      The data sets by stream name: "train", and "unlabelled" if the config has unlabelled data.
    """
    streams = {"train": data.load(**config["data"])}
    if config["unlabelled"]:
        streams["unlabelled"] = data.load(**config["unlabelled"])
    return streams


def warn_of_notes(streams: Mapping[str, Dataset]) -> None:
    """Warns of what the readers have noted of the data."""
    for dataset in streams.values():
        for note in dataset.notes:
            warnings.warn(note, stacklevel=2)


def check_scored(dataset: Dataset, scored: Dataset | None) -> None:
    """Raises UserError if the features of `scored` differ from the features of the training data."""
    if scored is None:
        return
    if dataset.scalings is not None:
        raise UserError("scored supports images and embeddings only: views would be scaled differently from training")
    ours, theirs = (shapes_of(d) for d in (dataset, scored))
    if ours != theirs:
        raise UserError(f"scored has features {theirs}, the training data {ours}: use the same source for both")


def chosen_clusters(config: Mapping[str, Any], dataset: Dataset, workdir: Path, quiet: bool) -> dict[str, Any]:
    """Chooses the number of clusters if the config has 0. A choice in the workdir is used again.

    Args:
      config: the config of the run.
      dataset: the training data.
      workdir: directory of the run.
      quiet: whether to print nothing.

    Returns:
      ``{"num_clusters": K}``; of a choice, what `number_of_clusters.num_clusters` returns.
    """
    if config["num_clusters"]:
        return {"num_clusters": config["num_clusters"]}
    choice = read_json(workdir / CHOSEN) or number_of_clusters.num_clusters(
        dataset, config["cluster_range"], seed=config["seed"]
    )
    show(number_of_clusters.summary_line(choice), quiet)
    return choice


def shapes_of(dataset: Dataset) -> dict[str, list]:
    """Shape of a row and dtype of each feature, as JSON values."""
    return {k: [list(v.shape[1:]), str(v.dtype)] for k, v in dataset.features.items()}


def show(text: str, quiet: bool) -> None:
    """Prints once, whatever the number of processes."""
    if is_first() and not quiet:
        print(text)
