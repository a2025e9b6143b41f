"""The examples of docs/estimators.md run as they stand, but for fewer epochs and digits."""

import re

import pytest
import sklearn.datasets

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
