"""Reads the style sheets and the scripts of the page, which lie in `assets/`."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from clustering_jax.report.markup import Html

STYLES = ("page.css", "workbench.css")
# In the order of their use.
SCRIPTS = ("state.js", "cards.js", "large.js", "corrections.js", "drag.js", "map.js", "start.js")


@cache
def style() -> Html:
    """The style sheet of the page."""
    return Html("".join(map(_read, STYLES)))


@cache
def script() -> Html:
    """The script of the page. It needs the elements of `workbench`."""
    return Html('(() => {\n"use strict";\n' + "".join(map(_read, SCRIPTS)) + "})();")


def digest(text: str) -> str:
    """The source of a script as a Content-Security-Policy names it: the browser runs no other one."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _read(name: str) -> str:
    return (files("clustering_jax.report") / "assets" / name).read_text(encoding="utf-8")
