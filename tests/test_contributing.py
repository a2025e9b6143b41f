"""Runs the method and the config in CONTRIBUTING.md as they are printed there."""

import re
import shlex
from importlib.metadata import EntryPoint

import pytest

from clustering_jax import cli, main, run
from clustering_jax.errors import UserError
from clustering_jax.files import read_json
from clustering_jax.inference.predictor import Predictor
from clustering_jax.settings import method_reference
from tests.paths import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
(COMMAND,) = re.findall(r"^clustering-jax train (.*)$", TEXT, re.MULTILINE)
FILES = "soft_kmeans.py", "soft_kmeans_config.py"


@pytest.fixture
def printed(tmp_path, monkeypatch):
    """Writes the files that the page prints to a new current directory."""
    for name, code in zip(FILES, CODE, strict=True):
        assert f"`{name}`" in TEXT
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(*more):
    return cli.read_flags(["train", "--config=soft_kmeans_config.py", "--workdir=x", *more], "workdir", "")[0]


@pytest.mark.filterwarnings("ignore:only")
@pytest.mark.long
def test_the_printed_command(printed, monkeypatch):
    main.main(["clustering-jax train", *shlex.split(COMMAND)])
    result = read_json(printed / "runs" / "soft_kmeans" / "result.json")
    assert result["method"] == "soft_kmeans.py:build" and result["scores"]["acc"] > 0.6
    monkeypatch.chdir(ROOT)  # the run has stored the path of its method
    assert Predictor.restore(printed / "runs" / "soft_kmeans").config["model"] == {"temperature": 0.1}


@pytest.mark.long
def test_the_flag_trains_another_method(printed):
    (printed / "other.py").write_text(CODE[0].replace('Phase("fit"', 'Phase("other"'))
    settings = config("--method=other.py:build", "--config.epochs=1")
    run.train(settings, printed / "run", quiet=True, reported=False)
    assert '"phase": "other"' in (printed / "run" / "metrics.jsonl").read_text()


def test_its_settings_are_checked_like_those_of_any_method(printed):
    settings = config()
    with pytest.raises(UserError, match="did you mean 'temperature'"):
        run.train({**settings, "model": {"temprature": 1.0}}, printed / "run")


@pytest.mark.parametrize(
    "method, words",
    [
        ("absent.py:build", "there is no file absent.py"),
        ("soft_kmeans.py", "names no function: give soft_kmeans.py:build"),
        ("soft_kmeans.py:biuld", "has no function 'biuld' .did you mean 'build'"),
        ("cmcm", "unknown method 'cmcm' .did you mean 'cmmc'"),
    ],
)
def test_a_missing_method_is_refused(printed, method, words):
    with pytest.raises(UserError, match=words):
        run.train(config(f"--method={method}"), printed / "run")
    assert not (printed / "run").exists()


def test_a_package_can_provide_a_method(printed, monkeypatch):
    monkeypatch.syspath_prepend(printed)
    point = EntryPoint("soft_kmeans", "soft_kmeans:build", method_reference.GROUP)
    monkeypatch.setattr(method_reference, "entry_points", lambda group: [point] if group == point.group else [])
    assert method_reference.entry_names() == ["soft_kmeans"]
    assert method_reference.load(config("--method=soft_kmeans")["method"]).__module__ == "soft_kmeans"
