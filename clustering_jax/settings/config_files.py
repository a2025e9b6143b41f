"""Config files: the published ones by name, a user's own by path."""

from __future__ import annotations

import re
from pathlib import Path

from clustering_jax.errors import UserError, nearest

_PACKAGE = Path(__file__).parents[1]


def directory() -> Path:
    """The directory of the published configs: inside an installed package, beside the package in a source tree."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def names() -> list[str]:
    """The names of the published configs, sorted."""
    return sorted(path.stem for path in directory().glob("*.py"))


def resolve(config: str) -> str:
    """The path of a config file, with its variant.

    Args:
      config: a name or a path, with or without a variant: ``cc_digits``, ``cc_digits:smoke``, ``mine/photos.py``.

    Returns:
      The path of a file that exists, followed by ``:variant`` where there is one.

    Raises:
      UserError: no published config has this name, or there is no such file.
    """
    name, colon, variant = config.partition(":")
    if Path(name).is_file():
        return config
    if re.fullmatch(r"\w+", name) and name in names():
        return f"{directory() / name}.py{colon}{variant}"
    if re.fullmatch(r"\w+", name):
        raise UserError(f"--config={config}: no config has this name{_suggestion(name)}")
    raise UserError(f"--config={config}: there is no file {name}; published configs are found by name, as cc_digits")


def _suggestion(name: str) -> str:
    """The nearest name, and all of them."""
    close, known = nearest(name, names()), f" (known: {', '.join(names())})"
    return close if close == known else close + known
