"""Runs the examples of docs/estimators.md with fewer epochs and digits. The docstrings describe every name."""

import inspect
import re

import pytest
import sklearn.datasets

from clustering_jax import estimators
from tests.test_run import ROOT

EXAMPLES = re.findall(
    r"## (\w+)[^\n]*\n\n```python\n(.*?)```", (ROOT / "docs" / "estimators.md").read_text("utf-8"), re.S
)
DIGITS = sklearn.datasets.load_digits()
SLOW = {"Photos", "Several", "Embeddings"}


@pytest.mark.filterwarnings("ignore:only", "ignore:batch size")
@pytest.mark.parametrize(
    "code", [pytest.param(code, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, code in EXAMPLES]
)
@pytest.mark.long
def test_example(code, tmp_path, monkeypatch, capsys):
    few = sklearn.utils.Bunch(images=DIGITS.images[:127], target=DIGITS.target[:127])
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: few)
    monkeypatch.chdir(tmp_path)
    code, changed = re.subn(r"epochs=\d+", "epochs=1", code)
    assert changed
    exec(compile(code, "docs/estimators.md", "exec"), {})
    assert capsys.readouterr().out


def test_each_has_an_example():
    assert len(EXAMPLES) == 5


def entries(doc, section):
    """The names that have a line of their own in a section of a docstring."""
    lines = re.search(rf"^{section}:\n((?:  .*\n?|\n(?=  ))+)", inspect.cleandoc(doc), re.MULTILINE)
    return re.findall(r"^  (\w+): \S", lines[1], re.MULTILINE) if lines else []


def fitted_attributes(kind):
    """The names ending in "_" that the class or its bases set on the estimator, and those of scikit-learn."""
    source = "".join(inspect.getsource(base) for base in kind.__mro__ if base.__module__.startswith("clustering_jax"))
    names = set(re.findall(r"self\.([a-z]\w*_)(?=[ ,][^(]*=[^=])", source))
    return names | (set() if "image_size" in inspect.signature(kind).parameters else {"n_features_in_"})


@pytest.mark.parametrize("name", estimators.__all__)
def test_help_documents_every_argument_attribute_and_method(name):
    kind = getattr(estimators, name)
    assert entries(kind.__doc__, "Args") == list(inspect.signature(kind).parameters)
    attributes = fitted_attributes(kind)
    assert {"labels_", "history_", "n_clusters_"} <= attributes <= set(entries(kind.__doc__, "Attributes"))
    methods = inspect.getmembers(kind, lambda member: inspect.isroutine(member))
    assert [n for n, method in methods if not n.startswith("_") and not inspect.getdoc(method)] == []


@pytest.mark.parametrize("name", ["fit", "predict", "predict_proba", "transform", "score", "save", "load"])
def test_help_documents_every_argument_of_a_method(name):
    method = getattr(estimators.MultiViewClustering, name)
    arguments = [argument for argument in inspect.signature(method).parameters if argument != "self"]
    assert entries(method.__doc__, "Args") == arguments
