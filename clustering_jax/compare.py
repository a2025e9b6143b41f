"""``python -m clustering_jax.compare --config=photos --encoders=lite0,DIR --workdir=DIR [--clusters=8,10,12]``.

Ranks encoders, and numbers of clusters, without labels. For each pair, TURTLE clusters the embeddings in a run of its
own below the workdir; the score of a run says how well linear classifiers predict its clusters on rows that they have
not seen (`clustering_jax.methods.generalization`). With ``--config.num_seeds=5`` the table also has the spread of the
score over the seeds. The command prints a table, best first, and writes compare.json. The same command again goes on
where it was stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from clustering_jax import cli
from clustering_jax.cli import read_flags
from clustering_jax.errors import UserError
from clustering_jax.files import write_json


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    text = "Encoders to rank, see embed.encoder (default: the config's)."
    flags.DEFINE_list("encoders", [], text, flag_values=values)
    flags.DEFINE_list("clusters", [], "Numbers of clusters to rank (default: the config's).", flag_values=values)
    return values


def configs_of(
    config: Mapping[str, Any], encoders: Sequence[str], clusters: Sequence[int], workdir: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the name and the config of each run. The runs of one encoder share its embeddings.

    Args:
      config: the config of a run on photos.
      encoders: values of `embed.encoder`.
      clusters: numbers of clusters.
      workdir: directory of all runs.
    """
    for number, encoder in enumerate(encoders, start=1):
        named = {**config, "embed": {**config["embed"], "encoder": encoder}}
        shared: dict[str, Any] = {}
        for k in clusters:
            name = f"{number}_{Path(encoder).name}_{k}"
            yield name, {**named, "num_clusters": k, **shared}
            path = str(workdir / name / "embeddings")
            shared = shared or {"data": {"source": "embeddings", "path": path, "split": "train"}}


def compare(
    config: Mapping[str, Any], encoders: Sequence[str], clusters: Sequence[int], workdir: Path
) -> list[dict[str, Any]]:
    """Trains a run for each encoder and number of clusters.

    Args:
      config: the config of a run on photos with TURTLE.
      encoders: values of `embed.encoder`.
      clusters: numbers of clusters.
      workdir: directory of all runs.

    Returns:
      For each run its name, "encoder", "num_clusters", "score" in [0, 1], occupied clusters, and "acc" if there are
      labels; the largest score first. With several seeds "score" is of the kept one, and "score_std" the standard
      deviation over all of them: smaller differences say nothing.

    Raises:
      UserError: the config is not of photos and TURTLE, or a run refuses its config.
    """
    from clustering_jax import run  # with JAX, which takes seconds: not before the flags are right

    if config["method"] != "turtle" or config["data"].get("source") != "photos":
        raise UserError("compare ranks encoders of photos by TURTLE's score: use --config=photos")
    rows = []
    for name, settings in configs_of(config, encoders, clusters, workdir):
        result = run.train(settings, workdir / name)
        kept = {key: value for key, value in result["scores"].items() if key in ("occupied", "acc")}
        row = {"run": name, "encoder": settings["embed"]["encoder"], "num_clusters": settings["num_clusters"]}
        each = [-seed["criterion"] for seed in result.get("seeds", {}).get("each", [])]
        spread = {"score_std": float(np.std(each))} if each else {}
        rows.append({**row, "score": -result["criterion"], **spread, **kept})
    return sorted(rows, key=lambda row: -row["score"])


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats the ranking as text."""
    columns = {"score": ".3f", "score_std": ".3f", "num_clusters": "", "occupied": "", "acc": ".3f"}
    shown = {name: form for name, form in columns.items() if name in rows[0]}
    lines = [" ".join(f"{name:>12}" for name in shown) + "  encoder"]
    for row in rows:
        lines.append(" ".join(f"{row[name]:12{form}}" for name, form in shown.items()) + f"  {row['encoder']}")
    return "\n".join(lines)


def _numbers(words: Sequence[str]) -> list[int]:
    if not all(word.strip().isdecimal() and int(word) >= 2 for word in words):
        raise UserError(f"--clusters={','.join(words)}: give numbers from 2, for example --clusters=8,10,12")
    return [int(word) for word in words]


def main(argv: list[str]) -> None:
    """Reads the flags, trains the runs, prints the ranking and writes it."""
    values = _flags()
    config, workdir = read_flags(argv, "workdir", __doc__, values)
    clusters = _numbers(values.clusters) or [config["num_clusters"]]
    rows = compare(config, values.encoders or [config.get("embed", {}).get("encoder", "")], clusters, workdir)
    write_json(workdir / "compare.json", rows)
    print(table(rows))


def command(argv: list[str]) -> None:
    """Runs `main` as a program, which ends here; `argv` begins with the name by which it was called."""
    cli.use_huge_pages()
    cli.run(lambda: main(argv))


if __name__ == "__main__":
    command(["python -m clustering_jax.compare", *sys.argv[1:]])
