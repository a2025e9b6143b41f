"""Imports between the chapters have one direction and no circle, and data sets do not import JAX."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from tests.paths import ROOT

PACKAGE = ROOT / "clustering_jax"
# From the lowest chapter up: a file imports only its own chapter and the chapters on the lines before.
CHAPTERS = (
    ("errors", "seal", "typing"),
    ("settings", "parallel", "method", "metrics"),
    ("files", "losses"),
    ("nn", "data", "augment"),
    ("kmeans", "weights"),
    ("encoders",),
    ("training",),
    ("methods",),
    ("inference",),
    ("serving", "report"),
    ("run",),
    ("recipe", "editing"),
    ("estimators",),
    ("cli",),
    ("start",),
    ("main", "predict", "edit", "update", "embed", "choose_k", "compare", "export", "serve", "report.__main__"),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(CHAPTERS) for name in names}


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path):
    """The modules of the package that a file imports, including lazy imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "clustering_jax":
            module = node.module.partition(".")[2]
            for alias in node.names:
                name = f"{module}.{alias.name}".strip(".")
                yield name if name in MODULES else module
        elif isinstance(node, ast.Import):
            yield from (a.name.partition(".")[2] for a in node.names if a.name.startswith("clustering_jax."))


def chapter(module):
    return module if module in LEVEL else module.partition(".")[0]


GRAPH = {module: set(imported(path)) - {module} for module, path in MODULES.items()}


def test_there_is_no_import_circle():
    assert len(list(TopologicalSorter(GRAPH).static_order())) == len(GRAPH)


@pytest.mark.parametrize("module", [module for module in GRAPH if module])
def test_imports_point_to_lower_chapters(module):
    own = chapter(module)
    wrong = {n for n in GRAPH[module] if n and chapter(n) != own and LEVEL[chapter(n)] >= LEVEL[own]}
    assert not wrong, f"{own} must not import {wrong}"


def test_methods_import_only_optimisers_from_training():
    used = {name for module in GRAPH if chapter(module) == "methods" for name in GRAPH[module]}
    assert {name for name in used if chapter(name) == "training"} == {"training.optim"}


@pytest.mark.parametrize("name", ["data", "settings"])
def test_a_chapter_does_not_import_jax(name):
    modules = [f"clustering_jax.{module}" for module in MODULES if chapter(module) == name]
    code = f"import sys, {', '.join(modules)}; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("name", ["tensorflow", "torch", "matplotlib"])
def test_no_file_imports_an_optional_library(name):
    allowed = {"prepare.py", "pytorch.py"}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        modules = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        modules += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        assert path.name in allowed or not any(m.split(".")[0] == name for m in modules), path
