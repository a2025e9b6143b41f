"""``python -m clustering_jax.choose_k --config=configs/cc_digits.py [--range=5:30 --workdir=RUN --train ...]``.

Recommends a number of clusters for the data of a config, without labels. It prints a table of four criteria over the
range, and their vote with its uncertainty. By default it examines the principal components of the raw data. With
``--workdir`` it examines the embedding of a finished run, which is far more reliable for images and views. ``--train``
first trains that run (or resumes it) with twice as many clusters as the end of the range; this takes as long as any run
of the config.

Photos (``--config=photos``) are embedded into ``--workdir`` first, and their embeddings are examined. With
``--generalization`` TURTLE clusters the embeddings for each number, and one more column shows how well linear
classifiers predict these clusters on rows that they have not seen. This column has no vote.

A config file is Python code that is executed: use only files you trust. Exit codes: see `cli`.
"""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from clustering_jax import cli, data
from clustering_jax.cli import read_flags
from clustering_jax.data.base import Dataset
from clustering_jax.data.views.pca import apply_pca, fit_pca, safe_factor
from clustering_jax.errors import UserError
from clustering_jax.files import output_directory, write_json, writing
from clustering_jax.inference.predictor import Predictor
from clustering_jax.kmeans import number_of_clusters
from clustering_jax.run import train, with_embeddings

# Largest number of principal components, and the share of the variance that is enough.
MAX_COMPONENTS, VARIANCE = 50, 0.9
# Largest number of values in an image. Larger images need too much memory, and their raw pixels say little.
MAX_PIXELS = 64 * 64 * 3
# A run that is trained for this has so many clusters for each cluster at the end of the range.
OVERCLUSTERING = 2
# Name of TURTLE's score in the table.
GENERALIZATION = "generalization"
# Number of images that are embedded at a time.
CHUNK = 1000


def range_of(text: str | None, default: Sequence[int]) -> range:
    """Parses ``--range``.

    Args:
      text: ``LEAST:MOST``, or None.
      default: ``(least, most)``, used if `text` is None.

    Returns:
      The numbers of clusters to examine.

    Raises:
      UserError: the range can't be parsed or is empty.
    """
    match = re.fullmatch(r"(\d+):(\d+)", text) if text else None
    least, most = map(int, match.groups()) if match else default
    if (text and not match) or not 2 <= least <= most:
        raise UserError(
            f"--range={text or f'{least}:{most}'}: give LEAST:MOST, 2 <= LEAST <= MOST, for example --range=5:30"
        )
    return range(least, most + 1)


def sampled(dataset: Dataset, seed: int) -> np.ndarray:
    """Draws the rows to examine: all rows, or `number_of_clusters.SAMPLE` of them, as ascending indices."""
    n = dataset.num_examples
    return np.sort(np.random.default_rng(seed).permutation(n)[: number_of_clusters.SAMPLE])


def raw_rows(dataset: Dataset, index: np.ndarray) -> np.ndarray:
    """Reads raw rows: pixels in [0, 1], embeddings, or concatenated views.

    Args:
      dataset: the data.
      index: row indices [m].

    Returns:
      The rows, float32 [m, d].

    Raises:
      UserError: the images are too large.
    """
    features = {name: rows for name, rows in dataset.features.items() if name != "mask"}
    size = sum(math.prod(rows.shape[1:]) for rows in features.values() if rows.ndim == 4)
    if size > MAX_PIXELS:
        raise UserError(
            f"images of {size} values are too large to compare their pixels: add --workdir=DIR --train, see --help"
        )
    parts = [
        rows[index].reshape(len(index), -1) / np.float32(255 if rows.ndim == 4 else 1) for rows in features.values()
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def learnt_rows(dataset: Dataset, index: np.ndarray, workdir: Path) -> np.ndarray:
    """Embeds rows with a finished run.

    Args:
      dataset: the data.
      index: row indices [m].
      workdir: directory of the run.

    Returns:
      The embeddings, float32 [m, d].

    Raises:
      UserError: there is no finished run, or it was trained on features of other shapes.
    """
    if not (workdir / "result.json").is_file():
        raise UserError(f"--workdir={workdir} holds no finished run: add --train to train one")
    predictor = Predictor.restore(workdir)
    ours = {name: rows.shape[1:] for name, rows in dataset.features.items()}
    theirs = {name: predictor.shapes.get(name) for name in ours}
    if ours != theirs:
        raise UserError(f"--workdir={workdir} was trained on rows of {theirs}, the config's data has {ours}")
    parts = np.array_split(index, math.ceil(len(index) / CHUNK))
    embeddings = [predictor.embed({k: rows[part] for k, rows in dataset.features.items()}) for part in parts]
    return np.concatenate(embeddings).astype(np.float32)


def principal(rows: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """Projects rows to their first principal components: as many as hold 90 % of the variance, at most 50.

    Args:
      rows: the rows [n, d].
      ks: the numbers of clusters to examine, ascending.

    Returns:
      The components [n, c], with c at most 50.

    Raises:
      UserError: there are too few rows, or too few different rows, for the largest k.
    """
    if len(rows) // 2 <= ks[-1]:
        raise UserError(f"--range ends with {ks[-1]}: half of the {len(rows)} rows must be more than that")
    rows = (rows * np.float64(safe_factor(rows))).astype(rows.dtype)  # which changes no cluster
    with np.errstate(invalid="ignore"):  # If all rows are equal, the shares of the variance are 0 / 0.
        fitted = fit_pca(rows, min(MAX_COMPONENTS, *rows.shape))
    components = apply_pca(fitted, rows)
    share = np.cumsum(components.var(0)) / max(float(rows.var(0).sum() * fitted["scale"] ** 2), 1e-30)
    components = components[:, : int((share < VARIANCE).sum()) + 1]
    distinct = len(np.unique(components, axis=0))
    if distinct <= ks[-1]:
        raise UserError(f"--range ends with {ks[-1]}, but only {distinct} rows differ from one another")
    return components


def table(result: Mapping[str, Any]) -> str:
    """Formats the criteria as text: a line for each k, a column for each criterion, and a * at its vote."""
    votes = dict(result["votes"])
    if GENERALIZATION in result["curve"][0]:
        votes[GENERALIZATION] = max(result["curve"], key=lambda point: point[GENERALIZATION])["k"]
    lines = [f"{'k':>4}" + "".join(f"{name:>{max(13, len(name) + 2)}}" for name in votes)]
    for point in result["curve"]:
        values = [(name, point[name], "*" if vote == point["k"] else " ") for name, vote in votes.items()]
        cells = [f"{'-' if v is None else f'{v:.3f}':>{max(12, len(name) + 1)}}{mark}" for name, v, mark in values]
        lines.append(f"{point['k']:4}" + "".join(cells))
    return "\n".join(lines)


def summary_line(result: Mapping[str, Any]) -> str:
    """Formats the recommendation as one line."""
    votes = ", ".join(f"{name} {k or 'none in this range'}" for name, k in result["votes"].items())
    (low, high), agree, of = result["interval"], result["agree"], len(result["votes"])
    odds = f"{agree} of {of} criteria within 2 of it" + ("" if 2 * agree > of else ", so they disagree")
    return f"num_clusters {result['num_clusters']} (80 % of votes between {low} and {high}): {votes}; {odds}"


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("range", None, "LEAST:MOST (default: the config's cluster_range).", flag_values=values)
    flags.DEFINE_string("workdir", None, "A finished run, whose embedding is examined.", flag_values=values)
    flags.DEFINE_bool("train", False, "Trains the run in --workdir first.", flag_values=values)
    text = "Ranks the numbers by TURTLE's score too; its runs lie in --workdir."
    flags.DEFINE_bool(GENERALIZATION, False, text, flag_values=values)
    flags.DEFINE_string("output", None, "Directory for choose_k.json.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Seed of all random draws.", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("samples", 10, "Number of random splits into halves.", lower_bound=2, flag_values=values)
    return values


def _photos_embedded(config: Mapping[str, Any], workdir: str | None) -> dict[str, Any]:
    """The config; of photos, one of their embeddings, which are computed in the directory of the run first."""
    if config["data"].get("source") != "photos":
        return dict(config)
    if not workdir:
        raise UserError("photos are embedded first: give --workdir=DIR, which a run of --config=photos can use later")
    return with_embeddings(dict(config), Path(workdir))


def generalization_scores(config: Mapping[str, Any], ks: Sequence[int], workdir: Path) -> list[float]:
    """TURTLE's label-free score for each number of clusters, from a run of its own below `workdir`.

    Args:
      config: a config of TURTLE whose data are embeddings.
      ks: the numbers of clusters.
      workdir: directory of the runs; finished ones are read.

    Returns:
      For each k the accuracy of linear classifiers that predict the clusters, in [0, 1].
    """
    scores = []
    for k in ks:
        result = train({**config, "num_clusters": k}, workdir / f"clusters_{k}", quiet=True, reported=False)
        scores.append(-result["criterion"])
        print(f"{k} clusters: score {scores[-1]:.3f}", flush=True)
    return scores


def choose_k(config: Mapping[str, Any], values: flags.FlagValues) -> dict[str, Any]:
    """Recommends a number of clusters for the data of a config.

    Args:
      config: the config of a run.
      values: the flags of this command.

    Returns:
      The result of `number_of_clusters.recommend`, the settings, and a description of the data.

    Raises:
      UserError: the flags or the data can't be used.
    """
    ks = range_of(values.range, config["cluster_range"])
    if values.train and not values.workdir:
        raise UserError("--train needs --workdir=DIR, a directory for the run")
    if values.generalization and (config["method"] != "turtle" or not values.workdir):
        raise UserError("--generalization needs a config of TURTLE, such as --config=photos, and --workdir=DIR")
    photos = config["data"].get("source") == "photos"
    if photos and values.train:
        raise UserError("photos need no --train: their embeddings are examined, and a run does not change them")
    config = _photos_embedded(config, values.workdir)
    dataset = data.load(**config["data"])
    for note in dataset.notes:
        warnings.warn(note, stacklevel=2)
    if values.train:
        train({**config, "num_clusters": OVERCLUSTERING * ks[-1]}, Path(values.workdir).expanduser())
    if not values.workdir and dataset.features.get("image", np.zeros(0)).ndim == 4:
        warnings.warn(
            "pixels say little about the number of clusters, so do not trust this answer: give --workdir of a finished "
            "run, or embed the photos first (--config=photos)",
            stacklevel=2,
        )
    index = sampled(dataset, values.seed)
    learnt = bool(values.workdir) and not (photos or values.generalization)
    points = learnt_rows(dataset, index, Path(values.workdir).expanduser()) if learnt else raw_rows(dataset, index)
    rows = principal(points, ks)
    result = number_of_clusters.recommend(
        number_of_clusters.curves(rows, ks, seed=values.seed, samples=values.samples), ks, seed=values.seed
    )
    if values.generalization:
        for point, score in zip(result["curve"], generalization_scores(config, ks, Path(values.workdir)), strict=True):
            point[GENERALIZATION] = score
    judged = "the photos' embeddings" if photos else f"the embedding of {values.workdir}" if learnt else "the raw data"
    settings = {"seed": values.seed, "samples": values.samples, "rows": len(rows), "components": rows.shape[1]}
    return {**result, **settings, "data": f"{dataset.name}, {dataset.split}", "judged": judged}


def main(argv: list[str]) -> None:
    """Reads the flags, computes the recommendation, prints it and writes it."""
    values = _flags()
    config, _ = read_flags(argv, "", __doc__, values)
    output = output_directory(values.output, "--output") if values.output else None
    if output and not output.parent.is_dir():
        raise UserError(f"--output={output}: there is no directory {output.parent}")
    result = choose_k(config, values)
    print(table(result))
    print(f"{result['data']}: {result['rows']} rows, {result['components']} principal components of {result['judged']}")
    print(summary_line(result))
    if output:
        with writing(output):
            output.mkdir(exist_ok=True)
        write_json(output / "choose_k.json", result)


def command(argv: list[str]) -> None:
    """Runs `main` as a program, which ends here; `argv` begins with the name by which it was called."""
    cli.use_huge_pages()
    cli.run(lambda: main(argv))


if __name__ == "__main__":
    command(["python -m clustering_jax.choose_k", *sys.argv[1:]])
