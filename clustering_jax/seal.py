"""A checksum inside a JSON object, so that a flipped bit is not taken for another value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY = "seal"


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON object with a checksum of itself under the key `KEY`, as its last entry."""
    plain = json.loads(json.dumps({name: entry for name, entry in value.items() if name != KEY}))
    return {**plain, KEY: _checksum(plain)}


def unsealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON object without its checksum.

    Args:
      value: an object of `sealed`, or of a program that writes no checksum.

    Raises:
      ValueError: the checksum is not that of the object.
    """
    *entries, (_, checksum) = [*value.items()] or [("", None)]
    matches = checksum == _checksum(dict(entries))  # under its name, or if a bit of the name was flipped
    if KEY in value and not matches:
        raise ValueError("it differs from its checksum")
    return dict(entries) if matches else dict(value)


def _checksum(plain: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16).hexdigest()
