"""Errors that a user can cause. The commands print them in one line, without a traceback."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping


class UserError(ValueError):
    """An error that the user can correct. The message is one line: what is wrong, where, and what to do."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown `name`: `` (did you mean 'x'?)``, or the list of `known` names if none is similar."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean '{close[0]}'?)" if close else f" (known: {', '.join(known)})"


def check_keywords(function: Callable, keywords: Mapping, where: str) -> None:
    """Checks that `function` accepts all `keywords`.

    A function with a ``**settings`` parameter is not checked here: it checks its keywords itself.

    Args:
      function: any callable.
      keywords: keyword arguments by name; the values are not read.
      where: beginning of the error message, the place where the keywords come from.

    Raises:
      UserError: `function` has no parameter of that name. The message suggests the most similar name.
    """
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for name in keywords:
        if name not in known:
            raise UserError(f"{where} has no setting '{name}'{nearest(name, known)}")
