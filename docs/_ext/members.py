"""Leaves out of the reference what Flax, NamedTuple and scikit-learn add to a class by themselves."""

import re
from typing import Any

from sphinx.application import Sphinx

FLAX_FIELDS = re.compile(r"(?:, )?parent: [^,]*, name: str \| None = None")
SKLEARN_LINK = re.compile(r":ref:`([^`<]*?)\s*(?:<[^`]*>)?`")
CLASS_DEFAULT = re.compile(r"<class '([\w.]+)'>")


def skip_member(app: Sphinx, what: str, name: str, item: Any, skip: bool, options: Any) -> bool | None:
    """Skips fields: the docstring of their class describes them."""
    return True if type(item).__name__ == "_tuplegetter" or name == "dtype" else None


def process_signature(
    app: Sphinx, what: str, name: str, item: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str, str | None] | None:
    """Removes `parent` and `name` of Flax modules, and writes a default that is a class by its name."""
    if what != "class" or signature is None:
        return None
    return CLASS_DEFAULT.sub(r"\1", FLAX_FIELDS.sub("", signature)), returned


def process_docstring(app: Sphinx, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Replaces links to pages of scikit-learn, which inherited methods have, by their text."""
    if str(getattr(item, "__module__", "")).startswith("sklearn."):
        lines[:] = SKLEARN_LINK.sub(r"\1", "\n".join(lines)).split("\n")


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-skip-member", skip_member)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("autodoc-process-docstring", process_docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
