"""Imports point one way (the contract between the parts)."""

import ast

import pytest

from tests.paths import ROOT

PACKAGE = ROOT / "clustering_jax"
# What each part must not import, directly.
FORBIDDEN = {
    "parallel.py": ("losses", "nn", "methods", "train", "data", "metrics"),
    "losses": ("nn", "methods", "train", "data", "metrics", "run"),
    "nn": ("losses", "methods", "train", "data", "metrics", "run"),
    "data": ("losses", "nn", "methods", "train", "evaluate", "run"),
    "metrics.py": ("losses", "nn", "methods", "train", "data"),
    "method.py": ("losses", "nn", "methods", "train", "data"),
    "methods": ("train", "run", "predict", "main", "checkpoint"),
    "train.py": ("methods", "losses", "nn", "run", "predict", "main"),
    "report": ("losses", "nn", "train", "run", "main"),
    "evaluate.py": ("methods", "train", "run"),
}


def imported(path):
    """Parts of the package that a file imports: "losses", "train", ..."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("clustering_jax"):
            parts = node.module.split(".")[1:]
            yield from parts[:1] or [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("clustering_jax."))


@pytest.mark.parametrize("part", FORBIDDEN)
def test_imports_point_one_way(part):
    files = sorted((PACKAGE / part).rglob("*.py")) or [PACKAGE / part]
    wrong = {(f.name, name) for f in files for name in imported(f) if name in FORBIDDEN[part]}
    assert not wrong


@pytest.mark.parametrize("name", ["tensorflow", "torch", "matplotlib"])
def test_no_file_needs(name):
    allowed = {"prepare.py"}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        modules = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        modules += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        assert path.name in allowed or not any(m.split(".")[0] == name for m in modules), path
