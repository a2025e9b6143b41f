"""What the docstrings of this package need before napoleon reads them, and signatures as they are written.

Several arguments may share a line, ``rows: number of labels. columns: of the other.``, and some stand in a paragraph
without a heading, as the fields of a class do. Here each gets its line, under "Args:".
"""

import inspect
import re
from collections.abc import Callable
from typing import Any, ForwardRef

from sphinx.application import Sphinx

DOCUMENTED = ("function", "method", "class")
SECTION = re.compile(r"(Args|Returns|Yields|Raises|References):$")
EXCEPTION = re.compile(r"(?<=[.;] )(?=[A-Z]\w+: )")
# "batch_size: 128. Rows ..." would be a list that begins with 128.
NUMBER = re.compile(r"^( *\w+: \d+)\.")
REMARK = re.compile(r"  (?=\S)(?!\*{0,2}\w+(, \*{0,2}\w+)*:)")


def split(lines: list[str], names: list[str]) -> list[str]:
    """`lines` of a docstring with each argument of `names`, and each exception, on a line of its own."""
    name = "|".join(map(re.escape, names)) or "(?!)"
    entry = rf"(?:{name})(?:, (?:{name}))*: "
    starts = re.compile(rf"(?<=[.;] )(?={entry})|^(?={entry})")
    found: list[str] = []
    section = ""
    for line in lines:
        heading = SECTION.match(line)
        if heading or (section == "paragraph" and not line):
            section = heading[1] if heading else ""
            found.append(line)
        elif section == "Raises":
            found += [f"{'  ' if i else ''}{part}".rstrip() for i, part in enumerate(EXCEPTION.split(line))]
        elif section == "Args":
            # A remark that begins a line belongs to the argument before it.
            first, *more = starts.split(f"  {line}" if REMARK.match(line) else line)
            found += [NUMBER.sub(r"\1\\.", part.rstrip()) for part in (first, *(f"  {m}" for m in more))]
        elif section in ("", "paragraph"):
            before, *entries = starts.split(line)
            if before or not entries:
                found.append(f"    {before}".rstrip() if section else before.rstrip("; "))
            if entries and not section:
                found += ["", "Args:"]
                section = "paragraph"
            found += [f"  {part}".rstrip() for part in entries]
        else:
            found.append(line)
    return found


class _Written:
    """What stands for itself in a signature."""

    def __init__(self, text: str):
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _written(parameter: inspect.Parameter) -> inspect.Parameter:
    """`parameter` with its annotation as it is in the source, and a default that is a class by its name."""
    annotation, default = parameter.annotation, parameter.default
    text = annotation.__forward_arg__ if isinstance(annotation, ForwardRef) else annotation
    annotation = _Written(text) if isinstance(text, str) else annotation
    named = inspect.isclass(default) and default is not inspect.Parameter.empty
    return parameter.replace(annotation=annotation, default=_Written(default.__name__) if named else default)


def _signature(item: Callable) -> inspect.Signature | None:
    try:
        return inspect.signature(item)
    except (TypeError, ValueError):
        return None


def process_docstring(app: Sphinx, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    signature = _signature(item) if what in DOCUMENTED else None
    lines[:] = split(lines, list(signature.parameters) if signature else [])


def process_signature(app: Sphinx, what: str, name: str, item: Any, options: Any, text: str, returned: str) -> Any:
    """Shapes, which exist for type checkers alone, stay; what is not for users, and what Flax adds, goes."""
    signature = _signature(item) if what in DOCUMENTED else None
    if signature is None:
        return None
    parameters = signature.parameters
    hidden = {"self", "cls"} if what == "method" else set()
    hidden |= {"parent", "name"} if what == "class" and "parent" in parameters else set()
    kept = [_written(p) for p in parameters.values() if p.name not in hidden and not p.name.startswith("_")]
    bare = signature.replace(parameters=kept, return_annotation=inspect.Signature.empty)
    result = signature.return_annotation
    return str(bare), str(result) if isinstance(result, str) and what != "class" else None


def skip_member(app: Sphinx, what: str, name: str, item: Any, skip: bool, options: Any) -> bool | None:
    """Fields, which their class tells of."""
    return True if type(item).__name__ == "_tuplegetter" or name == "dtype" else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    # Before napoleon's 500.
    app.connect("autodoc-process-docstring", process_docstring, priority=400)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("autodoc-skip-member", skip_member)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
