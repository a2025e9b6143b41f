"""Methods outside of this package: a function in a Python file, or an entry point of an installed package."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from clustering_jax.errors import UserError, nearest
from clustering_jax.settings.base import new_config

GROUP = "clustering_jax.methods"


def own_method(method: str, **changes: Any) -> ConfigDict:
    """The config of a method that is not part of this package.

    Args:
      method: ``FILE.py:FUNCTION``, or the name of an entry point in the group ``clustering_jax.methods``.
      **changes: values of the config. `model` has the method's own settings; `optimizer` and `run` are merged into
        the defaults that every config has.

    Returns:
      The config.
    """
    return new_config(method, changes)


def absolute(method: str) -> str:
    """The method's name, with an absolute path if it is ``FILE.py:FUNCTION``, so that it is found from anywhere.

    Raises:
      UserError: the file does not exist, or no function is named.
    """
    file, _, function = method.rpartition(":") if ":" in method else (method, "", "")
    if not file.endswith(".py"):
        return method
    if not function:
        raise UserError(f"method '{method}' names no function: give {method}:build")
    if not Path(file).is_file():
        raise UserError(f"method '{method}': there is no file {file}")
    return f"{Path(file).resolve()}:{function}"


def entry_names() -> list[str]:
    """The names of the methods that installed packages provide."""
    return sorted(point.name for point in _points())


def load(method: str) -> Callable | None:
    """The function that builds the method.

    Args:
      method: ``FILE.py:FUNCTION``, or the name of an entry point.

    Returns:
      The function, or None if `method` is neither.

    Raises:
      UserError: the file does not exist or has no such function.
    """
    file, _, function = absolute(method).rpartition(":")
    if file.endswith(".py"):
        module = _module(Path(file))
        if not hasattr(module, function):
            raise UserError(
                f"method '{method}': the file has no function '{function}'{nearest(function, vars(module))}"
            )
        return getattr(module, function)
    points = [point for point in _points() if point.name == method]
    return points[0].load() if points else None


def _points() -> list[EntryPoint]:
    return list(entry_points(group=GROUP))


def _module(path: Path) -> ModuleType:
    """The file as a module. It is registered, since Flax looks up the annotations of a module's classes by name."""
    spec = spec_from_file_location(f"own_method_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} can't be read as Python")
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
