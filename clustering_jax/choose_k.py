"""``python -m clustering_jax.choose_k --config=configs/cc_digits.py [--range=5:30 --workdir=RUN --train ...]``.

How many clusters a config's data has, without labels: a table of four criteria over the range, and their vote with its
uncertainty. Of the data as they are, on principal components; with ``--workdir`` of what a finished run has learnt of
them, which tells far more of images and views. ``--train`` first trains one there (or goes on with it), with twice as
many clusters as the range ends with; it takes as long as any run of the config.
A config file is Python and is executed: use only those you trust. Exit codes: see `cli`.
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
from clustering_jax.data.views.pca import apply_pca, fit_pca
from clustering_jax.errors import UserError
from clustering_jax.files import write_json
from clustering_jax.inference.predictor import Predictor
from clustering_jax.kmeans import criteria, number_of_clusters
from clustering_jax.run import train

# Principal components: at most so many, and no more than hold this share of the variance.
COMPONENTS, VARIANCE = 50, 0.9
# Numbers in an image beyond which pixels tell nothing and take too much memory side by side.
PIXELS = 64 * 64 * 3
# Clusters of a run trained for this, by the greatest number in the range.
OVER = 2
# Images in memory at a time while a run embeds them.
CHUNK = 1000


def range_of(text: str | None, default: Sequence[int]) -> range:
    """The numbers that ``--range=LEAST:MOST`` names, or those of `default`, (least, most)."""
    match = re.fullmatch(r"(\d+):(\d+)", text) if text else None
    least, most = map(int, match.groups()) if match else default
    if (text and not match) or not 2 <= least <= most:
        raise UserError(f"--range={text or f'{least}:{most}'}: give LEAST:MOST, 2 <= LEAST <= MOST, as --range=5:30")
    return range(least, most + 1)


def sampled(dataset: Dataset, seed: int) -> np.ndarray:
    """Which rows are compared: int, rising; all, or `choose.SAMPLE` of more."""
    n = dataset.num_examples
    return np.sort(np.random.default_rng(seed).permutation(n)[: number_of_clusters.SAMPLE])


def raw_rows(dataset: Dataset, index: np.ndarray) -> np.ndarray:
    """The rows of `index` as they are, float32 [m, d]: pixels in [0, 1], embeddings, or views side by side.

    Raises:
      UserError: large images.
    """
    features = {name: rows for name, rows in dataset.features.items() if name != "mask"}
    size = sum(math.prod(rows.shape[1:]) for rows in features.values() if rows.ndim == 4)
    if size > PIXELS:
        raise UserError(f"images of {size} numbers: pixels tell nothing there; add --workdir=DIR --train, see --help")
    parts = [
        rows[index].reshape(len(index), -1) / np.float32(255 if rows.ndim == 4 else 1) for rows in features.values()
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def learnt_rows(dataset: Dataset, index: np.ndarray, workdir: Path) -> np.ndarray:
    """What the finished run in `workdir` makes of the rows of `index`, float32 [m, d].

    Raises:
      UserError: there is no finished run, or it was trained on rows of other shapes.
    """
    if not (workdir / "result.json").is_file():
        raise UserError(f"--workdir={workdir} holds no finished run: --train makes one")
    predictor = Predictor.restore(workdir)
    ours = {name: rows.shape[1:] for name, rows in dataset.features.items()}
    theirs = {name: predictor.shapes.get(name) for name in ours}
    if ours != theirs:
        raise UserError(f"--workdir={workdir} was trained on rows of {theirs}, the config's data has {ours}")
    parts = np.array_split(index, math.ceil(len(index) / CHUNK))
    found = [predictor.embed({k: rows[part] for k, rows in dataset.features.items()}) for part in parts]
    return np.concatenate(found).astype(np.float32)


def principal(rows: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """`rows` [n, d] on the first principal components, 50 or what holds 90 % of the variance: [n, at most 50].

    Raises:
      UserError: too few rows, or too few that differ, for the numbers of `ks`.
    """
    if len(rows) // 2 <= ks[-1]:
        raise UserError(f"--range ends with {ks[-1]}: of {len(rows)} rows each half must have more than that many")
    with np.errstate(invalid="ignore"):  # rows that are all equal have no shares of variance
        fitted = fit_pca(rows, min(COMPONENTS, *rows.shape))
    found = apply_pca(fitted, rows)
    share = np.cumsum(found.var(0)) / max(float(rows.var(0).sum() * fitted["scale"] ** 2), 1e-30)
    found = found[:, : int((share < VARIANCE).sum()) + 1]
    distinct = len(np.unique(found, axis=0))
    if distinct <= ks[-1]:
        raise UserError(f"--range ends with {ks[-1]}, but only {distinct} rows differ from one another")
    return found


def table(found: Mapping[str, Any]) -> str:
    """A line for each k, a column for each criterion with * at its vote."""
    names, votes = list(criteria.RULES), found["votes"]
    lines = [f"{'k':>4}" + "".join(f"{name:>13}" for name in names)]
    for point in found["curve"]:
        values = [(point[name], "*" if votes[name] == point["k"] else " ") for name in names]
        shown = [f"{'-' if value is None else f'{value:.3f}':>12}{mark}" for value, mark in values]
        lines.append(f"{point['k']:4}" + "".join(shown))
    return "\n".join(lines)


def told(found: Mapping[str, Any]) -> str:
    """The recommendation in a line."""
    votes = ", ".join(f"{name} {k or 'none in this range'}" for name, k in found["votes"].items())
    (low, high), agree, of = found["interval"], found["agree"], len(found["votes"])
    odds = f"{agree} of {of} criteria within 2 of it" + ("" if 2 * agree > of else ", so they disagree")
    return f"num_clusters {found['num_clusters']} (80 % of votes between {low} and {high}): {votes}; {odds}"


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("range", None, "LEAST:MOST (default: the config's cluster_range).", flag_values=values)
    flags.DEFINE_string("workdir", None, "A finished run, whose embedding is judged.", flag_values=values)
    flags.DEFINE_bool("train", False, "Trains the run in --workdir first.", flag_values=values)
    flags.DEFINE_string("output", None, "Directory for choose_k.json.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Of everything drawn.", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("samples", 10, "Times the rows are split in halves.", lower_bound=2, flag_values=values)
    return values


def choose_k(config: Mapping[str, Any], values: flags.FlagValues) -> dict[str, Any]:
    """What `choose.recommend` says of the config's data, and on what."""
    ks = range_of(values.range, config["cluster_range"])
    if values.train and not values.workdir:
        raise UserError("--train needs --workdir=DIR, where the run is to be")
    dataset = data.load(**config["data"])
    for note in dataset.notes:
        warnings.warn(note, stacklevel=2)
    if values.train:
        train({**config, "num_clusters": OVER * ks[-1]}, Path(values.workdir))
    index = sampled(dataset, values.seed)
    made = learnt_rows(dataset, index, Path(values.workdir)) if values.workdir else raw_rows(dataset, index)
    rows = principal(made, ks)
    found = number_of_clusters.recommend(
        number_of_clusters.curves(rows, ks, seed=values.seed, samples=values.samples), ks, seed=values.seed
    )
    judged = f"the embedding of {values.workdir}" if values.workdir else "the data as they are"
    settings = {"seed": values.seed, "samples": values.samples, "rows": len(rows), "components": rows.shape[1]}
    return {**found, **settings, "data": f"{dataset.name}, {dataset.split}", "judged": judged}


def main(argv: list[str]) -> None:
    """Reads the flags, judges, prints and writes."""
    values = _flags()
    config, _ = read_flags(argv, "", __doc__, values)
    output = Path(values.output) if values.output else None
    if output and not output.parent.is_dir():
        raise UserError(f"--output={output}: there is no directory {output.parent}")
    found = choose_k(config, values)
    print(table(found))
    print(f"{found['data']}: {found['rows']} rows, {found['components']} principal components of {found['judged']}")
    print(told(found))
    if output:
        output.mkdir(exist_ok=True)
        write_json(output / "choose_k.json", found)


def command(argv: list[str]) -> None:
    """Runs `main` as a program, which ends here; `argv` begins with the name by which it was called."""
    cli.use_huge_pages()
    cli.run(lambda: main(argv))


if __name__ == "__main__":
    command(["python -m clustering_jax.choose_k", *sys.argv[1:]])
