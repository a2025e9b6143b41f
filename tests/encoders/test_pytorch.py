"""Encoders that PyTorch runs: the path through the package by tiny stand-ins, and parity where PyTorch is installed."""

import contextlib
import sys
from types import ModuleType, SimpleNamespace

import jax
import numpy as np
import pytest

from clustering_jax.data.images.preprocessing import Preprocessing
from clustering_jax.encoders import load_encoder
from clustering_jax.errors import UserError
from clustering_jax.inference.image_model import image_model
from clustering_jax.serving import export
from tests.fixtures.make_encoder_fixture import noise
from tests.paths import FIXTURES


class Tensor(np.ndarray):
    """As much of a tensor of PyTorch as the package uses."""

    to = cpu = lambda self, *_: self
    permute = lambda self, *axes: self.transpose(axes)  # noqa: E731
    float = lambda self: self.astype(np.float32)  # noqa: E731
    numpy = lambda self: np.asarray(self)  # noqa: E731


class Network:
    """The mean of each channel and of its right half."""

    def eval(self):
        return self

    def to(self, _):
        return self

    def state_dict(self):
        return {"w": np.ones(3, np.float32).view(Tensor)}

    def __call__(self, pixels):
        right = pixels[..., pixels.shape[3] // 2 :]
        return np.concatenate([pixels.mean((2, 3)), right.mean((2, 3))], axis=1).view(Tensor)


CONFIG = {
    "input_size": (3, 8, 8),
    "crop_pct": 0.8,
    "interpolation": "bilinear",
    "mean": (0.1, 0.2, 0.3),
    "std": (0.5, 0.5, 0.25),
}


@pytest.fixture
def stand_ins(monkeypatch):
    """Modules that stand in for torch and timm; the settings of the model's preprocessing can be changed."""
    torch, timm, config = ModuleType("torch"), ModuleType("timm"), dict(CONFIG)
    torch.cuda = SimpleNamespace(is_available=lambda: False)
    torch.inference_mode = contextlib.nullcontext
    torch.tensor = lambda values, device: np.array(values, np.float32).view(Tensor)
    torch.from_numpy = lambda array: array.view(Tensor)

    def create_model(name, *, pretrained, num_classes):
        if name != "tiny" or not pretrained or num_classes:
            raise RuntimeError(f"Unknown model ({name})\nsecond line")
        return Network()

    timm.create_model = create_model
    timm.data = SimpleNamespace(resolve_model_data_config=lambda _: config)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "timm", timm)
    return config


def test_a_model_of_timm_embeds_in_batches(stand_ins):
    model = image_model("", "timm:tiny", 0)
    images = noise((5, 8, 8, 3))
    scaled = (images / 255 - CONFIG["mean"]) / CONFIG["std"]
    expected = np.concatenate([scaled.mean((1, 2)), scaled[:, :, 4:].mean((1, 2))], axis=1)
    np.testing.assert_allclose(model.embedder(2)(images), expected, rtol=1e-5)
    assert load_encoder("timm:tiny").preprocessing == Preprocessing(
        (8, 8), 10, "bilinear", CONFIG["mean"], CONFIG["std"]
    )
    assert model.settings["model"] == "timm:tiny" and len(model.settings["checksum"]) == 64


def test_it_is_not_exported(stand_ins):
    config = {"embed": {"clip": "", "encoder": "timm:tiny", "resize": 0}, "data": {}}
    with pytest.raises(UserError, match="'timm:tiny': a model of PyTorch can't be exported; --input=embeddings"):
        export._encoder_of(config)


def refuses(name, message):
    with pytest.raises(UserError, match=message) as error:
        load_encoder(name)
    assert "\n" not in str(error.value)


def test_mistakes_are_one_line(stand_ins, tmp_path, monkeypatch):
    refuses("timm:tny", r"timm can't make the model 'tny' \(Unknown model \(tny\) second line\)")
    stand_ins["crop_mode"] = "squash"
    refuses("timm:tiny", "needs a preprocessing that is not supported")
    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers"))
    refuses(f"hf:{tmp_path}", "has no config.json, give a model's directory")


@pytest.mark.parametrize(("name", "module"), [("timm:tiny", "timm"), ("hf:nowhere", "transformers")])
def test_a_library_that_is_missing_is_named(monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    refuses(name, rf"needs {module} .*: pip install 'clustering_jax\[torch\]'")


@pytest.mark.long
@pytest.mark.parametrize("name", ["dinov2", "siglip", "dinov3"])
def test_a_directory_by_transformers_is_as_in_jax(name):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    directory = FIXTURES / "encoders" / name
    ours, theirs = load_encoder(directory), load_encoder(f"hf:{directory}")
    assert ours.preprocessing == theirs.preprocessing
    images = noise((2, *ours.preprocessing.size, 3))
    expected = np.asarray(jax.jit(ours.features)(ours.params, images))
    np.testing.assert_allclose(theirs.features({}, images), expected, atol=1e-4)
