"""Configures the site: ``python -m sphinx -W -b html docs build/docs``. Neither build nor pages fetch anything."""

import contextlib
import sys
from importlib.metadata import version as installed
from pathlib import Path

# Autodoc imports modules with `typing.TYPE_CHECKING` set, which the models of FastAPI can't bear.
with contextlib.suppress(ImportError):
    import fastapi  # noqa: F401

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent / "_ext")]

project = "clustering_jax"
copyright = "the clustering_jax authors"
release = version = installed("clustering_jax")

extensions = [
    "formulas",
    "members",
    "notebooks",
    "settings_table",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_ext"]
html_theme = "furo"
html_title = f"clustering_jax {release}"
html_show_sphinx = False
html_copy_source = False
pygments_style = "friendly"
# The language of blocks that name none: commands and drawings.
highlight_language = "text"
# The copy button leaves out prompts, and the output of examples with prompts.
copybutton_prompt_text = ">>> |\\.\\.\\. "
copybutton_prompt_is_regexp = True

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# A name in single backticks links to what it names, where that is on the site.
default_role = "py:obj"
# The server is an extra, which building the site does not need.
autodoc_mock_imports = ["starlette"]
add_module_names = False
maximum_signature_line_length = 88
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_param = False
# A name that several modules have, `Network` say, links to the first.
suppress_warnings = ["ref.python"]
