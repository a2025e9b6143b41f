"""The method that CONTRIBUTING.md shows is run as it stands there."""

import re
import types

import pytest

from clustering_jax import methods, run
from clustering_jax.errors import UserError
from clustering_jax.inference.predictor import Predictor
from clustering_jax.settings import cmmc
from tests.paths import ROOT


@pytest.fixture
def soft_kmeans(monkeypatch):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    module = types.ModuleType("soft_kmeans")
    exec(compile(code, "CONTRIBUTING.md", "exec"), module.__dict__)
    monkeypatch.setitem(methods.METHODS, "soft_kmeans", module.build)


def config(**model):
    data = {"source": "planted", "n": 120, "shared": 2.0, "private": 0.0, "num_clusters": 3}
    settings = cmmc(num_clusters=3, batch_size=40, epochs=60, data=data, run={"checkpoint_every": 0}).to_dict()
    return {**settings, "method": "soft_kmeans", "model": model, "optimizer": {"learning_rate": 0.03}}


@pytest.mark.filterwarnings("ignore:only")
def test_a_fifth_method(soft_kmeans, tmp_path):
    result = run.train(config(), tmp_path)
    assert result["method"] == "soft_kmeans" and result["scores"]["acc"] > 0.6
    assert Predictor.restore(tmp_path).config["method"] == "soft_kmeans"


def test_its_settings_are_checked_as_any(soft_kmeans, tmp_path):
    with pytest.raises(UserError, match="did you mean 'temperature'"):
        run.train(config(temprature=1.0), tmp_path)
