"""The documentation of the keys of a config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Key(NamedTuple):
    """A key of a config.

    Args:
      name: groups and key, joined by dots.
      value: its value.
      comment: what it means, on one line; "" where nothing is known of it.
    """

    name: str
    value: Any
    comment: str


def documented(config: Mapping[str, Any], prefix: str = "") -> Iterator[Key]:
    """The keys of a nested config. An empty group is a value."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from documented(value, f"{prefix}{name}.")
        else:
            yield Key(prefix + name, value, "")
