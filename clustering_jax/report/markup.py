"""HTML that can't be broken by what is put into it: text becomes markup in one place, which escapes it."""

from __future__ import annotations

import html

VOID = ("img", "meta")  # have no end tag


class Html(str):
    """Markup, as against text. File names, words and config values are text, whoever wrote them."""

    __slots__ = ()


def escaped(text: object) -> Html:
    """`text` as markup that shows it; markup stays as it is."""
    return text if isinstance(text, Html) else Html(html.escape(str(text)))


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """``<name attribute="...">children</name>``.

    An underscore in an attribute's name is a hyphen there, a trailing one is dropped (``class_``); None leaves it out.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{shown}>" if name in VOID else f"<{name}{shown}>{joined(*children)}</{name}>")


def joined(*parts: object) -> Html:
    """The parts one behind the other."""
    return Html("".join(map(escaped, parts)))
