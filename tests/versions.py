"""Features of the installed JAX, which are known without importing it."""

from importlib.metadata import version


def has_old_emitters() -> bool:
    """Whether XLA's CPU backend still has the older emitters of loops; jaxlib 0.11 removed them and their flag."""
    return tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11)
