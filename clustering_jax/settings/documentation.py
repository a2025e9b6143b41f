"""The documentation of the keys of a config: the comments on the fields of the settings tuples."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from clustering_jax.settings import sources
from clustering_jax.settings.base import Config, Embed, Embeddings, Optimizer, Photos, Rows, Run
from clustering_jax.settings.cc import AUGMENTATIONS, CC
from clustering_jax.settings.cmmc import CMMC
from clustering_jax.settings.dmim import DMIM
from clustering_jax.settings.dxmc import DXMC
from clustering_jax.settings.kmeans import KMeans
from clustering_jax.settings.scmvc import SCMVC
from clustering_jax.settings.spectral import Spectral
from clustering_jax.settings.temi import Temi
from clustering_jax.settings.turtle import Turtle

MODELS: dict[str, type] = {
    "cc": CC,
    "cmmc": CMMC,
    "dmim": DMIM,
    "dxmc": DXMC,
    "kmeans": KMeans,
    "scmvc": SCMVC,
    "spectral": Spectral,
    "temi": Temi,
    "turtle": Turtle,
}
SOURCES: dict[str, type] = {
    "arrays": sources.Arrays,
    "embeddings": Embeddings,
    "folder": sources.Folder,
    "multiview": sources.Multiview,
    "multiview_pca": sources.MultiviewPca,
    "photos": Photos,
    "planted": sources.Planted,
    "planted_embeddings": sources.PlantedEmbeddings,
    "synthetic": sources.Synthetic,
    "tfds": sources.Tfds,
}
SOURCE = 'Data source, for example "folder", "tfds", "multiview" or "embeddings"; it decides on the other keys here.'


class Key(NamedTuple):
    """A key of a config.

    Args:
      name: groups and key, joined by dots.
      value: its value.
      comment: what it means, as Markdown text on one line; "" where nothing is known of it.
    """

    name: str
    value: Any
    comment: str


@cache
def comments(kind: type) -> dict[str, str]:
    """The comment above each field of a settings tuple, read from its source.

    Args:
      kind: class of the tuple.

    Returns:
      The text of the comment by the field's name, on one line; "" for a field without a comment.
    """
    found: dict[str, str] = {}
    lines: list[str] = []
    for line in inspect.getsource(kind).splitlines():
        text = line.strip()
        field = re.match(r"    (\w+): ", line)
        if field:
            found[field[1]] = " ".join(lines)
        lines = [*lines, text.removeprefix("#").strip()] if text.startswith("#") else []
    return found


def documented(config: Mapping[str, Any]) -> Iterator[Key]:
    """The keys of a config in the order of their tuples, each with its value and its comment.

    Args:
      config: a plain, nested config with the key "method".
    """
    groups: dict[str, dict[str, str]] = {
        "model": _of(MODELS, config["method"]),
        "augment": _of(AUGMENTATIONS, config.get("augment", {}).get("kind", "natural")),
        "optimizer": comments(Optimizer),
        "run": comments(Run),
        "rows": comments(Rows),
        "embed": comments(Embed),
    }
    for name, value in _ordered(config, [*comments(Config), *groups]):
        if not isinstance(value, Mapping) or not value:
            yield Key(name, value, comments(Config).get(name, ""))
        elif name in ("data", "scored", "unlabelled"):
            yield from _keys(f"{name}.", value, _source(value))
        else:
            yield from _keys(f"{name}.", value, groups.get(name, {}))


def _of(kinds: Mapping[str, type], name: str) -> dict[str, str]:
    return comments(kinds[name]) if name in kinds else {}


def _source(group: Mapping[str, Any]) -> dict[str, str]:
    return {"source": SOURCE} | _of(SOURCES, group.get("source", "")) | {"source": SOURCE}


def _ordered(group: Mapping[str, Any], known: Sequence[str]) -> list[tuple[str, Any]]:
    """The items of a group in the order of `known`; a ConfigDict sorts them by name."""
    return sorted(group.items(), key=lambda item: known.index(item[0]) if item[0] in known else len(known))


def _keys(prefix: str, group: Mapping[str, Any], texts: Mapping[str, str]) -> Iterator[Key]:
    for name, value in _ordered(group, list(texts)):
        comment = texts.get(name, "")
        if isinstance(value, Mapping) and value:
            inner = _source(value) if "source" in value else dict.fromkeys(value, comment)
            yield from _keys(f"{prefix}{name}.", value, inner)
        else:
            yield Key(prefix + name, value, comment)
