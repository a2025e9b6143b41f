"""Errors that a user can cause: reported in one line, without a traceback."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping


class UserError(ValueError):
    """Something the user can put right. The message is one line: what is wrong, where, and what to do."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the closest of `known`, or the whole list where none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean '{close[0]}'?)" if close else f" (known: {', '.join(known)})"


def check_keywords(function: Callable, keywords: Mapping, where: str) -> None:
    """Raises UserError for the first of `keywords` that `function` does not take, naming the nearest it does.

    A function that takes any keyword, ``**settings``, checks them itself.
    """
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for name in keywords:
        if name not in known:
            raise UserError(f"{where} has no setting '{name}'{nearest(name, known)}")
