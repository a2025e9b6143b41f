"""Checks keys, defaults, commands, links, examples and words of README and docs/, and builds the site."""

import ast
import doctest
import importlib
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from flax.traverse_util import empty_node, flatten_dict

from clustering_jax import settings
from clustering_jax.augment.policies import cc_policy, digits_policy
from clustering_jax.data import SOURCES
from clustering_jax.data.images.for_embedding import folder_rows
from clustering_jax.settings import documentation
from tests.paths import ROOT
from tests.test_configs import FILES, load

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
METHODS = ("cc", "cmmc", "dmim", "dxmc", "scmvc", "temi", "turtle")
COMMAND = re.compile(
    r"(?:python -m |^)((?:clustering_jax|benchmarks)[\w.]*|clustering-jax [\w-]+)([^`\n]*)", re.MULTILINE
)
# Modules of the commands of the console script whose names differ.
SCRIPT = {"train": "main", "choose-k": "choose_k", "report": "report.__main__"}


def name(path):
    return path.name if path == README else str(path.relative_to(ROOT / "docs"))


def text(path):
    """The text of the page. Continued lines are joined."""
    return re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))


def page(method):
    return text(ROOT / "docs" / "methods" / f"{method}.md")


def flat(config):
    values = flatten_dict(config.to_dict(), sep=".", keep_empty_nodes=True)
    return {key: {} if value is empty_node else value for key, value in values.items()}


@pytest.mark.parametrize("method", METHODS)
def test_the_page_of_a_method_lists_its_keys(method):
    assert f"```{{settings}} {method}\n```" in page(method).partition("## Keys")[2].partition("\n### ")[0]


@pytest.mark.parametrize("method", METHODS)
def test_the_tables_of_keys_are_the_settings(method, monkeypatch):
    """The table has every key of the config with its default as a Python literal, and a comment that is a sentence."""
    pytest.importorskip("sphinx", reason="the extra 'docs' is not installed")
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    rows = importlib.import_module("settings_table").keys(method)
    assert {key: ast.literal_eval(value) for key, value, _ in rows} == flat(getattr(settings, method)())
    assert all(re.search(r"\w{3}.*[.)]$", comment) for _, _, comment in rows)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_key_of_a_config_is_documented(path):
    for variant in ("", "smoke"):
        config = load(path, variant)[1].to_dict()
        keys = list(documentation.documented(config))
        assert {key.name: key.value for key in keys} == flat(load(path, variant)[1])
        assert [key.name for key in keys if not key.comment] == []


@pytest.mark.parametrize("source", [source for source in documentation.SOURCES if source != "photos"])
def test_the_settings_of_a_data_source_are_the_arguments_of_its_function(source):
    fields = set(documentation.SOURCES[source]._fields) - {"source"}
    parameters = inspect.signature(SOURCES[source]).parameters
    assert fields == set(parameters)
    if source != "embeddings":  # its tuple has the defaults of the DXMC config
        defaults = {k: p.default for k, p in parameters.items() if p.default is not inspect.Parameter.empty}
        assert documentation.SOURCES[source]._field_defaults == defaults


def test_photos_have_settings_of_a_folder():
    """Photos are embedded like a split of the source "folder"."""
    assert set(documentation.SOURCES["photos"]._fields) - {"source"} <= set(inspect.signature(folder_rows).parameters)


@pytest.mark.parametrize("function", [cc_policy, digits_policy])
def test_the_settings_of_an_augmentation_are_the_arguments_of_its_function(function):
    kind = documentation.AUGMENTATIONS["digits" if function is digits_policy else "natural"]
    expected = {k: p.default for k, p in inspect.signature(function).parameters.items() if k != "size"}
    assert {k: v for k, v in kind._field_defaults.items() if k != "kind"} == expected


@pytest.mark.parametrize("method", METHODS)
def test_every_data_source_of_a_page_has_a_table(method):
    """Every heading that names a source, or the source of a split, has a table below it."""
    sections = re.findall(r"^### [^\n]*source `(\w+)`\n(.*?)(?=^##|\Z)", page(method), re.MULTILINE | re.DOTALL)
    assert sections
    for source, text_of in sections:
        assert f"{{settings}} {documentation.SOURCES[source].__name__}\n" in text_of


def test_a_split_to_embed_has_the_settings_of_a_folder():
    (omitted,) = re.findall(r"{settings} Folder\n:omit: (.*)\n", page("dxmc"))
    left = set(documentation.SOURCES["folder"]._fields) - set(omitted.split())
    assert left == set(inspect.signature(folder_rows).parameters)


def documented_terms(method):
    return set(re.findall(r"^\| \$\\mathcal.*?\$ \| `(\w+)`", page(method), re.MULTILINE)) - {"loss"}


def test_the_terms_of_the_losses_are_those_of_the_log():
    for method in METHODS:
        folder = ROOT / "clustering_jax" / "methods"
        files = [*folder.glob(f"{method}.py"), *(folder / method).glob("*.py")]
        sources = "".join(p.read_text() for p in files)
        terms = documented_terms(method)
        assert terms and all(f'"{term}"' in sources for term in terms), method


def config_of(path):
    """The config that a command names by its path or its name, `:smoke` or not."""
    file, _, variant = path.partition(":")
    file = file if file.endswith(".py") else f"configs/{file}.py"
    assert (ROOT / file).is_file(), f"{path} is not there"
    return flat(load(ROOT / file, variant)[1])


def module_of(command):
    """The module that a command runs: its own name, or the name that the console script gives it."""
    _, _, word = command.partition("clustering-jax ")
    return f"clustering_jax.{SCRIPT.get(word, word)}" if word else command


def check_flags(module, words):
    # The module is not imported, because benchmarks need packages for the comparison.
    source = Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")
    known = set(re.findall(r"""["'](?:--)?(\w+)["']""", source))
    config = None
    for word in words:
        flag, _, value = word.partition("=")
        if flag == "--config" and re.match(r"(configs/)?[a-z]\w+(\.py)?(:\w+)?$", value):
            config = config_of(value) if value.startswith("configs/") or "." not in value else None
        elif flag.startswith("--config."):
            key = flag.removeprefix("--config.")
            assert config is None or any(k == key or k.startswith(f"{key}.") for k in config), f"{flag} is no key"
        elif flag.startswith("--"):
            assert flag.removeprefix("--") in known | {"config", "help", "method", "print"}, f"{module} has no {flag}"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_commands_name_what_exists(path):
    for command, rest in COMMAND.findall(text(path)):
        module = module_of(command)
        assert importlib.util.find_spec(module), f"{module} is not there"
        check_flags(module, shlex.split(rest.split(" # ")[0].split(" && ")[0], posix=True))


@pytest.mark.parametrize("method", METHODS)
def test_keys_named_in_the_text_exist(method):
    known = set().union(*(config_of(f"configs/{p.name}") for p in (ROOT / "configs").glob(f"{method}*.py")))
    for key in re.findall(r"`(?:--config\.)?((?:model|optimizer|run|augment|embed)\.\w+)(?=[=`])", page(method)):
        if key.endswith(".safetensors"):
            continue
        assert any(k == key or k.startswith(f"{key}.") for k in known), key


def anchors(path):
    content = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", content, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_internal_links_resolve(path):
    content = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", content):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.is_file(), f"{target} is not there"
        assert not anchor or anchor in anchors(found), f"{target}: no such heading"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_python_in_the_pages_imports_what_exists(path):
    for code in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("clustering_jax"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_the_readme_is_short_and_makes_no_excuses():
    words = README.read_text(encoding="utf-8")
    assert len(words.split()) <= 900
    assert re.findall(r"\b(?:aims?|hoped?|another day|TODO|soon)\b", words, re.IGNORECASE) == []
    # Both commands for new users are on the first screen.
    assert all(f"make {target}" in "\n".join(words.splitlines()[:12]) for target in ("demo", "test"))


def test_the_commands_of_the_readme_are_checked():
    assert len(COMMAND.findall(text(README))) >= 5
    with pytest.raises(AssertionError, match="no key"):
        check_flags("clustering_jax.main", ["--config=cc_digits", "--config.model.widht=3"])
    with pytest.raises(AssertionError, match="is not there"):
        check_flags("clustering_jax.main", ["--config=cc_digit"])


def test_every_notebook_has_a_page_in_the_contents():
    names = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    index = text(ROOT / "docs" / "index.md")
    assert {path.stem for path in (ROOT / "docs" / "notebooks").glob("*.md")} == names
    assert all(f"\nnotebooks/{name}\n" in index for name in names)


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "api").glob("*.md")), ids=name)
def test_the_reference_names_members_that_exist(path):
    directives = re.findall(r"automodule:: ([\w.]+)\n   :members:([^\n]*)", path.read_text(encoding="utf-8"))
    for module, members in directives:
        source = Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")
        names = {getattr(node, "name", None) for node in ast.parse(source).body}
        names |= {
            alias.name for node in ast.parse(source).body if isinstance(node, ast.ImportFrom) for alias in node.names
        }
        assert [n for n in re.findall(r"\w+", members) if n not in names] == [], module


@pytest.mark.long
def test_the_examples_of_the_losses():
    examples = "\n".join(re.findall(r"```pycon\n(.*?)```", text(ROOT / "docs" / "losses.md"), re.DOTALL))
    parsed = doctest.DocTestParser().get_doctest(examples, {}, "losses.md", "losses.md", 0)
    report = []
    result = doctest.DocTestRunner().run(parsed, out=report.append)
    assert result.attempted > 50 and not result.failed, "".join(report)


def test_every_loss_has_an_example():
    from clustering_jax import losses

    examples = text(ROOT / "docs" / "losses.md")
    assert [n for n in losses.__all__ if f"losses.{n}" not in examples] == []


@pytest.fixture
def extensions(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    return importlib.import_module


@pytest.mark.parametrize("formula", [r"x^2", r"\sum_{i=1}^{n} \frac{1}{n} \Bigl( \log \sum_{j} e^{s_{ij}} \Bigr)"])
@pytest.mark.long
def test_formulas_are_svg_paths_aligned_with_the_text(formula, extensions):
    pytest.importorskip("ziamath", reason="the extra 'docs' is not installed")
    drawing = extensions("formulas").to_svg(formula, inline=False)
    assert drawing.startswith("<svg") and drawing.count("<path") >= 2 and "<text" not in drawing
    height, below = (float(re.search(rf"{key}: (-?[\d.]+)em", drawing)[1]) for key in ("height", "vertical-align"))
    assert 0.3 < height < 5 and -height < below <= 0.2


def test_a_formula_with_a_drawing_that_is_too_tall_is_refused(extensions):
    pytest.importorskip("ziamath", reason="the extra 'docs' is not installed")
    with pytest.raises(ValueError, match="Bigl"):
        extensions("formulas").to_svg(r"\left( \log \sum_{j \neq i} e^{s_{ij}} \right)", inline=False)


CELLS = {
    "text": ({"cell_type": "markdown", "source": ["# A\n", "b"]}, "# A\nb\n"),
    "code": ({"cell_type": "code", "source": ["1 + 1"], "outputs": []}, "````python\n1 + 1\n````\n"),
    "stream": (
        {"cell_type": "code", "source": [], "outputs": [{"text": ["a\n", "b\n"]}]},
        "````python\n\n````\n\n````text\na\nb\n````\n",
    ),
    "result": (
        {"cell_type": "code", "source": ["x"], "outputs": [{"data": {"text/plain": ["2"]}}]},
        "````python\nx\n````\n\n````text\n2\n````\n",
    ),
    "picture, not its text": (
        {
            "cell_type": "code",
            "source": ["x"],
            "outputs": [{"data": {"image/png": "AA==\n", "text/plain": "<Figure>"}}],
        },
        "````python\nx\n````\n\n![output of the cell above](data:image/png;base64,AA==)\n",
    ),
}


@pytest.mark.parametrize("case", CELLS)
def test_notebooks_become_markdown(case, extensions):
    pytest.importorskip("sphinx", reason="the extra 'docs' is not installed")
    cell, expected = CELLS[case]
    assert extensions("notebooks").to_markdown({"cells": [cell]}) == expected


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    for package in ("sphinx", "myst_parser", "furo", "sphinx_copybutton", "ziamath"):
        pytest.importorskip(package, reason="the extra 'docs' is not installed")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        str(ROOT / "docs"),
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {file.relative_to(tmp_path).with_suffix(".md").as_posix() for file in tmp_path.rglob("*.html")}
    assert {name(path) for path in PAGES if path != README} <= pages
    built = "".join(file.read_text(encoding="utf-8") for file in tmp_path.rglob("*.html"))
    assert built.count('role="img" aria-label') > 40
    assert "Alias for field" not in built and "_Sentinel" not in built
    assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="(?:https?:)?//', built), "something is fetched"
