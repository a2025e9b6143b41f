"""The comments on the fields of a settings tuple, read from its source: they are the settings' documentation."""

from __future__ import annotations

import inspect
import re
from functools import cache


@cache
def comments(kind: type) -> dict[str, str]:
    """The comment above each field of a NamedTuple.

    Args:
      kind: class whose fields each have one or more lines of comment above them.

    Returns:
      The text of the comment by field name, on one line; "" for a field without a comment.
    """
    found: dict[str, str] = {}
    lines: list[str] = []
    for line in inspect.getsource(kind).splitlines():
        text = line.strip()
        field = re.match(r"    (\w+): ", line)
        if field:
            found[field[1]] = " ".join(lines)
        lines = [*lines, text.removeprefix("#").strip()] if text.startswith("#") else []
    return {name: found[name] for name in kind._fields}  # type: ignore[attr-defined]
