"""What docs/ says: keys and defaults, commands, links, examples; and that the site is built without a warning."""

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
from clustering_jax.data import SOURCES
from clustering_jax.data.images.for_embedding import folder_rows
from tests.paths import ROOT
from tests.test_configs import load

PAGES = sorted((ROOT / "docs").rglob("*.md"))
METHODS = ("cc", "cmmc", "dmim", "dxmc", "temi", "turtle")
ROW = re.compile(r"^\| `([\w.]+)` \| (?:`(.+?)`|required) \| (.+) \|$", re.MULTILINE)
COMMAND = re.compile(r"python -m ((?:clustering_jax|benchmarks)[\w.]*)([^`\n]*)")
REQUIRED = inspect.Parameter.empty


def name(path):
    return str(path.relative_to(ROOT / "docs"))


def text(path):
    """The page, lines that are continued joined."""
    return re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))


def page(method):
    return text(ROOT / "docs" / "methods" / f"{method}.md")


def table(rows):
    """{key: default} of a table of keys; every one has a meaning."""
    found = [(key, ast.literal_eval(value) if value else REQUIRED) for key, value, _ in ROW.findall(rows)]
    assert len(dict(found)) == len(found), "a key is there twice"
    return dict(found)


def flat(config):
    values = flatten_dict(config.to_dict(), sep=".", keep_empty_nodes=True)
    return {key: {} if value is empty_node else value for key, value in values.items()}


@pytest.mark.parametrize("method", METHODS)
def test_every_key_is_on_the_page_of_its_method_with_its_default(method):
    expected = flat(getattr(settings, method)())
    found = table(page(method).partition("## Keys")[2].partition("\n### ")[0])
    assert found == expected and all(type(found[key]) is type(expected[key]) for key in found)


@pytest.mark.parametrize("method", METHODS)
def test_the_settings_of_data_sources(method):
    """Tables below a heading that names a source, or a split's source, have its arguments with their defaults."""
    sections = re.findall(r"^### ([^\n]*source `(\w+)`)\n(.*?)(?=^##|\Z)", page(method), re.MULTILINE | re.DOTALL)
    assert sections
    for heading, source, rows in sections:
        split = heading.startswith("`embed.splits")
        function = folder_rows if split and source == "folder" else SOURCES[source]
        expected = {k: p.default for k, p in inspect.signature(function).parameters.items()}
        assert {key.removeprefix("data."): value for key, value in table(rows).items()} == expected, heading


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
    """The config that a command names, `:smoke` or not."""
    file, _, variant = path.partition(":")
    assert (ROOT / file).is_file(), f"{path} is not there"
    return flat(load(ROOT / file, variant)[1])


def check_flags(module, words):
    # Not imported: benchmarks need their peers.
    source = Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")
    known = set(re.findall(r"""["'](?:--)?(\w+)["']""", source))
    config = None
    for word in words:
        flag, _, value = word.partition("=")
        if flag == "--config" and value.startswith("configs/"):
            config = config_of(value)
        elif flag.startswith("--config."):
            key = flag.removeprefix("--config.")
            assert config is None or any(k == key or k.startswith(f"{key}.") for k in config), f"{flag} is no key"
        elif flag.startswith("--"):
            assert flag.removeprefix("--") in known | {"config"}, f"{module} has no {flag}"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_commands_name_what_exists(path):
    for module, rest in COMMAND.findall(text(path)):
        assert importlib.util.find_spec(module), f"{module} is not there"
        check_flags(module, shlex.split(rest.split(" # ")[0].split(" && ")[0], posix=True))


@pytest.mark.parametrize("method", METHODS)
def test_keys_named_in_the_text_exist(method):
    known = set().union(*(config_of(f"configs/{p.name}") for p in (ROOT / "configs").glob(f"{method}_*.py")))
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


def test_what_is_included_is_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    marks = re.findall(r':(?:start-after|end-before): "(.*)"', text(ROOT / "docs" / "measured.md"))
    assert len(marks) == 2 and 0 < readme.find(marks[0]) < readme.find(marks[1])


def test_the_examples_of_the_losses():
    examples = "\n".join(re.findall(r"```pycon\n(.*?)```", text(ROOT / "docs" / "losses.md"), re.DOTALL))
    parsed = doctest.DocTestParser().get_doctest(examples, {}, "losses.md", "losses.md", 0)
    told = []
    result = doctest.DocTestRunner().run(parsed, out=told.append)
    assert result.attempted > 50 and not result.failed, "".join(told)


def test_every_loss_has_an_example():
    from clustering_jax import losses

    examples = text(ROOT / "docs" / "losses.md")
    assert [n for n in losses.__all__ if f"losses.{n}" not in examples] == []


DOCSTRINGS = {
    "arguments that share a line": (
        ["Args:", "  a: one. b, c: two;", "    more.", "  A remark.", "  d: 128. It."],
        ["Args:", "  a: one.", "  b, c: two;", "    more.", "    A remark.", "  d: 128\\. It."],
    ),
    "arguments without a heading": (
        ["What; a: one.", "b: two,", "more.", "", "Rest."],
        ["What", "", "Args:", "  a: one.", "  b: two,", "    more.", "", "Rest."],
    ),
    "exceptions": (
        ["Raises:", "  UserError: one. ValueError: two."],
        ["Raises:", "  UserError: one.", "  ValueError: two."],
    ),
    "nothing": (["What it is: a sum.", "", "Returns:", "  a: b. b: c"],) * 2,
}


@pytest.mark.parametrize("case", DOCSTRINGS)
def test_docstrings_are_split_for_the_site(case, monkeypatch):
    pytest.importorskip("sphinx", reason="the extra 'docs' is not installed")
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    lines, expected = DOCSTRINGS[case]
    assert importlib.import_module("docstrings").split(lines, ["a", "b", "c", "d"]) == expected


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    for package in ("sphinx", "myst_parser", "furo", "latex2mathml"):
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
    assert {name(path) for path in PAGES} <= pages
    built = "".join(file.read_text(encoding="utf-8") for file in tmp_path.rglob("*.html"))
    assert built.count("<math") > 40 and '<span class="pre">\'n</span> <span class="pre">d\'</span>' in built
    assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="(?:https?:)?//', built), "something is fetched"
