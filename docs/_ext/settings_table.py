"""A table of settings, made from the tuples of `clustering_jax.settings`: names, defaults and comments.

``{settings} cc`` lists all keys of a method's config. ``{settings} Folder`` with the option ``prefix`` lists the fields
of one tuple; the option ``omit`` names fields to leave out.
"""

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from clustering_jax import settings
from clustering_jax.settings import documentation, sources

WIDTHS = (30, 15, 55)


def fields(kind: type, prefix: str, omit: list[str]) -> list[tuple[str, str, str]]:
    """The rows of one tuple: key, default or "required", comment."""
    defaults, texts = kind._field_defaults, documentation.comments(kind)
    return [
        (prefix + name, repr(defaults[name]) if name in defaults else "required", texts[name])
        for name in kind._fields
        if name not in omit
    ]


def keys(method: str) -> list[tuple[str, str, str]]:
    """The rows of a method's config."""
    config = getattr(settings, method)().to_dict()
    return [(key.name, repr(key.value), key.comment) for key in documentation.documented(config)]


class Settings(SphinxDirective):
    required_arguments = 1
    option_spec = {"prefix": directives.unchanged, "omit": directives.unchanged}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name in documentation.MODELS:
            return [self._table(keys(name))]
        kind = getattr(sources, name, None) or documentation.AUGMENTATIONS[name]
        prefix = f"{self.options['prefix']}." if "prefix" in self.options else ""
        return [self._table(fields(kind, prefix, self.options.get("omit", "").split()))]

    def _table(self, rows: list[tuple[str, str, str]]) -> nodes.table:
        group = nodes.tgroup(cols=3)
        group += [nodes.colspec(colwidth=width) for width in WIDTHS]
        head = nodes.row("", *(nodes.entry("", nodes.paragraph(text=text)) for text in ("key", "default", "meaning")))
        body = nodes.tbody("", *(self._row(*row) for row in rows))
        group += [nodes.thead("", head), body]
        return nodes.table("", group)

    def _row(self, key: str, default: str, comment: str) -> nodes.row:
        meaning = nodes.entry()
        self.state.nested_parse(StringList([comment], source="settings"), 0, meaning)
        cells = (nodes.literal(text=text) for text in (key, default))
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells), meaning)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("settings", Settings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
