"""ResNets of ImageNet with the parameter names of every publisher give the same network."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from clustering_jax.data.images.preprocessing import Preprocessing
from clustering_jax.encoders import load_encoder, resnet
from clustering_jax.errors import UserError
from clustering_jax.nn.resnet import ResNet
from tests.fixtures.make_encoder_fixture import noise

numpy = pytest.importorskip("safetensors.numpy")
BASIC, BOTTLENECK = [64, 128, 256, 512], [256, 512, 1024, 2048]
HUGGING_FACE = {
    "resnet18": {"depths": [2, 2, 2, 2], "layer_type": "basic", "hidden_sizes": BASIC},
    "resnet50": {"depths": [3, 4, 6, 3], "layer_type": "bottleneck", "hidden_sizes": BOTTLENECK},
}
UNUSED = {"fc.weight": np.ones(3, np.float32), "bn1.num_batches_tracked": np.zeros((), np.int64)}
TIMM = {"input_size": [3, 64, 64], "interpolation": "bilinear", "crop_pct": 0.95, "mean": [0.5] * 3, "std": [0.2] * 3}


def drawn(depth: str) -> dict:
    """Random variables of the network."""
    draw = np.random.RandomState(0)
    shapes = jax.eval_shape(lambda: ResNet(depth).init(jax.random.key(0), np.zeros((1, 64, 64, 3)), False))

    def leaf(path, x):
        scale = (2 / np.prod(x.shape[:3])) ** 0.5 if len(x.shape) == 4 else 0.1
        return draw.normal(1.0 if path[-1].key in ("scale", "var") else 0.0, scale, x.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def save(path, variables, name_of, prefix, config=None):
    tensors = {
        prefix + name_of(p): np.ascontiguousarray(x.transpose(3, 2, 0, 1) if x.ndim == 4 else x)
        for p, x in flatten_dict(variables).items()
    }
    numpy.save_file({**tensors, **UNUSED}, path / "model.safetensors")
    if config:
        (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("kind", ["torchvision", "timm", "hugging_face"])
@pytest.mark.parametrize("depth", HUGGING_FACE)
@pytest.mark.long
def test_variables(tmp_path, depth, kind):
    variables = drawn(depth)
    if kind == "torchvision":
        save(tmp_path, variables, resnet._torch_name, "")
        path, settings = tmp_path / "model.safetensors", Preprocessing((224, 224), 256, "bilinear")
    elif kind == "timm":
        save(tmp_path, variables, resnet._torch_name, "", {"architecture": depth, "pretrained_cfg": TIMM})
        path, settings = tmp_path, Preprocessing((64, 64), 67, "bilinear", (0.5,) * 3, (0.2,) * 3)
    else:
        config = {"model_type": "resnet", **HUGGING_FACE[depth]}
        save(tmp_path, variables, resnet._hugging_face_name, "resnet.", config)
        path, settings = tmp_path, Preprocessing((224, 224), 256, "bicubic")
    encoder = load_encoder(path)
    assert encoder.preprocessing == settings
    jax.tree.map(np.testing.assert_array_equal, encoder.params, variables)


@pytest.mark.long
def test_features_equal_those_of_the_network(tmp_path):
    variables, images = drawn("resnet18"), noise((2, 64, 64, 3))
    save(tmp_path, variables, resnet._torch_name, "", {"architecture": "resnet18", "pretrained_cfg": TIMM})
    encoder = load_encoder(tmp_path)
    pixels = ((images / 255 - 0.5) / 0.2).astype(np.float32)
    wanted = jax.jit(lambda x: ResNet("resnet18").apply(variables, x, False))(pixels)
    assert np.std(wanted) > 0.01
    rows = jax.jit(encoder.features)(encoder.params, images)
    np.testing.assert_allclose(rows, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**HUGGING_FACE["resnet18"], "depths": [2, 2, 2, 3]}, r"stages of \[2, 2, 2, 3\] blocks .* are none of"),
        ({**HUGGING_FACE["resnet18"], "downsample_in_first_stage": True}, "downsample_in_first_stage True"),
        (HUGGING_FACE["resnet50"], "is not a resnet50 with ImageNet's stem: .* looks like Hugging Face's ResNet$"),
    ],
)
def test_another_network_is_refused(tmp_path, config, message):
    save(tmp_path, drawn("resnet18"), resnet._hugging_face_name, "resnet.", {"model_type": "resnet", **config})
    with pytest.raises(UserError, match=message):
        load_encoder(tmp_path)


def test_settings_of_timm_are_checked(tmp_path):
    config = {"architecture": "resnet18", "pretrained_cfg": {**TIMM, "mean": [0.5]}}
    save(tmp_path, drawn("resnet18"), resnet._torch_name, "", config)
    with pytest.raises(UserError, match=r"mean \[0\.5\] is not supported, only 3 numbers"):
        load_encoder(tmp_path)


def test_names_equal_those_of_the_publisher():
    path = ("params", "layer2_1", "conv2", "kernel")
    assert resnet._torch_name(path) == "layer2.1.conv2.weight"
    assert resnet._hugging_face_name(path) == "encoder.stages.1.layers.1.layer.1.convolution.weight"
    path = ("batch_stats", "layer2_0", "downsample_1", "var")
    assert resnet._torch_name(path) == "layer2.0.downsample.1.running_var"
    assert resnet._hugging_face_name(path) == "encoder.stages.1.layers.0.shortcut.normalization.running_var"
    assert resnet._hugging_face_name(("params", "bn1", "bias")) == "embedder.embedder.normalization.bias"
