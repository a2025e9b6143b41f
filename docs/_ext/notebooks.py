"""Shows a notebook as a page: its text, its code and its stored outputs. Nothing is executed.

A page `docs/notebooks/NAME.md` stands for `notebooks/NAME.ipynb`; the notebook replaces what the page holds.
"""

import json
from pathlib import Path, PurePosixPath
from typing import Any

from sphinx.application import Sphinx

FOLDER = PurePosixPath("notebooks")
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def _fenced(text: str, language: str) -> str:
    return f"````{language}\n{text.rstrip()}\n````\n"


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        # Sphinx writes such pictures into files of their own.
        return f"![output of the cell above](data:image/png;base64,{''.join(data['image/png']).strip()})\n"
    text = "".join(output.get("text") or data.get("text/plain", ""))
    return _fenced(text, "text") if text.strip() else ""


def _cell(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        return f"{source}\n"
    return "\n".join([_fenced(source, "python"), *map(_output, cell["outputs"])])


def to_markdown(notebook: dict[str, Any]) -> str:
    """Returns a page in Markdown.

    Args:
      notebook: The parsed JSON of a `.ipynb` file of format 4.
    """
    return "\n".join(map(_cell, notebook["cells"]))


def read_source(app: Sphinx, name: str, source: list[str]) -> None:
    page = PurePosixPath(name)
    if page.parent == FOLDER:
        path = NOTEBOOKS / f"{page.name}.ipynb"
        app.env.note_dependency(str(path))
        source[0] = to_markdown(json.loads(path.read_text(encoding="utf-8")))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", read_source)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
