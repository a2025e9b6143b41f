"""Every kind of path gives its encoder, and a file that does not fit is refused in one line with the reason."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import pytest

from clustering_jax.data.images.preprocessing import Preprocessing
from clustering_jax.encoders import load_encoder
from clustering_jax.errors import UserError
from clustering_jax.nn.vit.clip_weights import load_clip
from tests.fixtures.make_encoder_fixture import noise
from tests.paths import FIXTURES

numpy = pytest.importorskip("safetensors.numpy")
MODELS = FIXTURES / "encoders"


@pytest.fixture
def model(tmp_path):
    """Returns a copy of the directory of a model. A test can change its tensors and its config."""

    def copy(name: str, *, drop: str = "", rename: tuple[str, str] = ("", ""), add: str = "", **config):
        path = tmp_path / name
        shutil.copytree(MODELS / name, path)
        tensors = numpy.load_file(path / "model.safetensors")
        kept = {k.replace(*rename) if rename[0] else k: v for k, v in tensors.items() if not drop or drop not in k}
        extra = {add: np.zeros(3, np.float32)} if add else {}
        numpy.save_file({**kept, **extra}, path / "model.safetensors")
        tree = {**json.loads((path / "config.json").read_text()), **config}
        (path / "config.json").write_text(json.dumps(tree))
        return path

    return copy


def rows(encoder, images):
    return np.asarray(jax.jit(encoder.features)(encoder.params, images))


def test_a_file_and_its_directory_give_the_same_model():
    of_directory, of_file = (load_encoder(MODELS / "dinov2" / end) for end in ("", "model.safetensors"))
    assert of_directory.name == of_file.name == "dinov2"
    assert of_directory.checksum == of_file.checksum
    assert of_directory.preprocessing == Preprocessing((35, 35), 0, "bicubic", (0.4,) * 3, (0.3,) * 3)


@pytest.mark.parametrize("prefix", ["dinov2.", "dinov2_with_registers."])
def test_the_prefix_of_a_classifier_is_dropped(model, prefix):
    path = model("dinov2", add="classifier.bias")
    tensors = numpy.load_file(path / "model.safetensors")
    numpy.save_file({prefix + k: v for k, v in tensors.items()}, path / "model.safetensors")
    images = noise((2, 35, 35, 3))
    np.testing.assert_array_equal(rows(load_encoder(path), images), rows(load_encoder(MODELS / "dinov2"), images))


def test_clip_features_equal_load_clip():
    encoder, clip = load_encoder(FIXTURES / "clip_hf"), load_clip(FIXTURES / "clip_hf", texts=False)
    assert encoder.preprocessing.size == (24, 24) and encoder.preprocessing.resize == 27
    images = noise((2, 24, 24, 3))
    np.testing.assert_array_equal(rows(encoder, images), jax.jit(clip.image_features)(clip.params, images))


def test_bfloat16_is_close():
    images = noise((4, 32, 32, 3))
    exact, rounded = (rows(load_encoder(MODELS / "dinov3", dtype=dtype), images) for dtype in ("float32", "bfloat16"))
    assert exact.dtype == rounded.dtype == np.float32
    assert 0 < np.abs(exact - rounded).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "dinov2",
            {"drop": "layer.1.norm2"},
            r"lacks 2 tensors \(encoder.layer.1.norm2.bias, encoder.layer.1.norm2.weight\).* looks like DINOv2$",
        ),
        ("dinov2", {"add": "more"}, r"is not the DINOv2 of its config.json: it also has 1 tensors \(more\)"),
        ("dinov2_registers", {"model_type": "dinov2"}, r"1 tensors .*register_tokens.* like DINOv2 with registers$"),
        ("dinov3", {"model_type": "dinov2", "mlp_ratio": 2}, r"lacks .* looks like DINOv3$"),
        ("siglip", {"model_type": "dinov3_vit"}, r"lacks .* looks like SigLIP$"),
        ("dinov2", {"hidden_size": 27}, r"cls_token is \[1, 1, 24\], .* has \[1, 1, 27\] there$"),
        ("dinov2", {"hidden_size": 25}, "a width of 25 can't be split into 3 heads"),
        ("dinov2", {"hidden_act": "gelu_new"}, "unknown activation 'gelu_new'"),
        ("dinov2", {"hidden_size": "24"}, "hidden_size is '24'"),
        ("dinov2", {"patch_size": 6}, "images of 35 x 35 pixels can't be cut into patches of 6"),
        ("dinov2", {"model_type": "dino2"}, r"type 'dino2', which is not known \(did you mean 'dinov2'\?\)"),
        ("dinov3", {"num_register_tokens": -1}, "num_register_tokens is -1"),
        ("dinov3", {"num_attention_heads": 12}, "heads of 2 channels can't be rotated"),
        ("siglip", {"vision_use_head": False}, "vision_use_head False is not supported"),
        ("siglip2", {"num_patches": 15}, "the patches of an image make no square"),
    ],
)
def test_another_model_is_refused(model, name, change, message):
    path = model(name, **change)
    with pytest.raises(UserError, match=message) as error:
        load_encoder(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_paths_without_a_model_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"'.*nowhere' does not exist: .* or one of lite0"):
        load_encoder(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no config\.json"):
        load_encoder(tmp_path)
    shutil.copy(MODELS / "siglip" / "model.safetensors", tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"looks like SigLIP: give the model's directory"):
        load_encoder(tmp_path / "x.safetensors")
    shutil.copy(MODELS / "siglip" / "config.json", tmp_path)
    with pytest.raises(UserError, match=r"has no weights: put one of model\.safetensors, .* there"):
        load_encoder(tmp_path)


def test_infinite_weights_are_refused(model):
    path = model("siglip")
    tensors = numpy.load_file(path / "model.safetensors")
    tensors["head.probe"] = tensors["head.probe"] * np.inf
    numpy.save_file(tensors, path / "model.safetensors")
    with pytest.raises(UserError, match=r"damaged: head\.probe is not finite"):
        load_encoder(path)
