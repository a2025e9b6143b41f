"""Checks of settings, the same for all methods: one line for the first name or value that is wrong.

A field of a settings tuple is annotated with the rule that its values follow, as in ``temperature: PositiveFloat``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar, get_type_hints

from clustering_jax.errors import UserError, check_keywords, nearest


class Rule(NamedTuple):
    """A condition on a value, or on each entry of a tuple.

    Args:
      holds: whether a value is allowed.
      remedy: given a value that is not, the end of the error message.
    """

    holds: Callable[[Any], bool]
    remedy: Callable[[Any], str]


def one_of(*choices: str) -> Rule:
    """The value is one of `choices`."""
    text = " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))
    return Rule(choices.__contains__, lambda _: f": choose {text}")


def nearest_of(*choices: str) -> Rule:
    """The value is one of `choices`; the message names the nearest one."""
    return Rule(choices.__contains__, lambda value: nearest(value, choices))


_POSITIVE = Rule(lambda value: value > 0, lambda _: ": choose a number above 0")
_NOT_NEGATIVE = Rule(lambda value: 0 <= value < math.inf, lambda _: ": choose 0 or more")
_WIDTH = Rule(lambda value: value >= 1, lambda _: ": choose 1 or more")

PositiveFloat = Annotated[float, _POSITIVE]
PositiveInt = Annotated[int, _POSITIVE]
NonNegativeFloat = Annotated[float, _NOT_NEGATIVE]
NonNegativeInt = Annotated[int, _NOT_NEGATIVE]
Width = Annotated[int, _WIDTH]
Widths = Annotated[tuple[int, ...], _WIDTH]
Dtype = Annotated[str, one_of("float32", "bfloat16")]

T = TypeVar("T", bound=tuple)


def settings_of(kind: Callable[..., T], values: Mapping[str, Any], where: str, *, group: str) -> T:
    """Makes a settings tuple from a user's values.

    Args:
      kind: class of the tuple, for example `CMMC`.
      values: fields by name; the others keep their defaults.
      where: start of the message about an unknown name, for example "method 'cmmc'".
      group: group of the config that the fields belong to, for example "model".

    Returns:
      The tuple.

    Raises:
      UserError: an unknown name, with the nearest one, or a value that its field does not allow.
    """
    check_keywords(kind, values, where)
    settings = kind(**values)
    for name, hint in get_type_hints(kind, include_extras=True).items():
        for rule in getattr(hint, "__metadata__", ()):
            _check(f"{group}.{name}", getattr(settings, name), rule)
    return settings


def _check(name: str, value: Any, rule: Rule) -> None:
    for entry in value if isinstance(value, list | tuple) else (value,):
        try:
            holds = rule.holds(entry)
        except TypeError:  # text where a number must be
            holds = False
        if not holds:
            shown = f"'{entry}'" if isinstance(entry, str) else entry
            raise UserError(f"{name} is {shown}{rule.remedy(entry)}")
