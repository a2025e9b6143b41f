"""The keys of a config as text, one line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of a nested config, joined by dots, with their values. An empty group is a value."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def documented_keys(config: Mapping[str, Any]) -> list[str]:
    """A line for each key: its name and its value."""
    return [f"  {key} = {value!r}" for key, value in flat(config)]
