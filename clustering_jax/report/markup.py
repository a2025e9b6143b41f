"""Builds HTML that its content can't break: text becomes markup in one place, which escapes it."""

from __future__ import annotations

import html

VOID = ("img", "meta")  # elements without an end tag


class Html(str):
    """Markup. A plain `str` is text: file names, words and config values are never markup."""

    __slots__ = ()


def escaped(text: object) -> Html:
    """Escapes text; markup is returned unchanged."""
    return text if isinstance(text, Html) else Html(html.escape(str(text)))


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """Builds ``<name attribute="...">children</name>``.

    Args:
      name: name of the element.
      *children: texts and markup inside the element.
      **attributes: attributes. An underscore in a name becomes a hyphen, and a trailing underscore (``class_``) is
        dropped. An attribute that is None is left out.

    Returns:
      The element.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{shown}>" if name in VOID else f"<{name}{shown}>{joined(*children)}</{name}>")


def joined(*parts: object) -> Html:
    """Concatenates texts and markup."""
    return Html("".join(map(escaped, parts)))
