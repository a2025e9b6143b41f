"""Errors that a user can cause. The commands print them in one line, without a traceback."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# Characters of a message, beyond which it is cut: it may quote a value of any length.
LONGEST = 1000


class UserError(ValueError):
    """An error that the user can correct. The message is one line: what is wrong, where, and what to do.

    Args:
      message: the text. Line breaks, which file names and quoted values may hold, become blanks.
    """

    def __init__(self, message: str):
        line = " ".join(str(message).splitlines())
        super().__init__(line if len(line) <= LONGEST else f"{line[:LONGEST]} ...")


class ResultWarning(UserWarning):
    """A warning about the clusters of a run, which matters only if the run is kept."""


@contextmanager
def reading(path: Path, kind: str = "") -> Iterator[None]:
    """Turns what the readers raise for a bad file into one line that names the file.

    Args:
      path: the file.
      kind: what it should be, for the message; "" is its suffix.

    Raises:
      UserError: the block raised an exception.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # broken files raise OSError, BadZipFile, zlib.error, csv.Error, IndexError, ...
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "pickle" in reason:
            raise UserError(f"{path} holds Python objects or no array: save numbers, one array a view") from error
        kind = kind or f"{path.suffix.lower()} file"
        raise UserError(f"{path} can't be read, it is damaged or not a {kind} ({reason}): save it again") from error


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
