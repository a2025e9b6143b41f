"""Pixels equal those of transformers' Pillow processors, and settings that are not supported are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clustering_jax.data.images.preprocessing import Preprocessing, from_json, preprocess, preprocess_all
from clustering_jax.errors import UserError
from tests.fixtures.make_encoder_fixture import PROCESSORS, SHAPES, noise, processed

CASES = [(name, shape) for name in PROCESSORS for shape in SHAPES]


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_pixels_equal_transformers(name, shape):
    pytest.importorskip("transformers")
    image = noise(shape)
    wanted, processor = processed(name, image)
    settings = from_json(Path("x"), json.loads(processor.to_json_string()), Preprocessing())
    pixels = preprocess(Image.fromarray(image), settings)
    mean, std = np.array(settings.mean), np.array(settings.std)
    assert pixels.shape == wanted.shape
    assert np.abs(pixels / 255 - (wanted * std + mean)).max() <= 1 / 255 + 1e-6


@pytest.mark.parametrize(
    ("tree", "settings"),
    [
        ({}, Preprocessing((9, 9), 11)),
        ({"size": 12, "crop_size": 8, "resample": 2}, Preprocessing((8, 8), 12, "bilinear")),
        ({"size": 12}, Preprocessing((12, 12))),
        ({"size": {"shortest_edge": 14}, "crop_size": {"height": 8, "width": 10}}, Preprocessing((8, 10), 14)),
        ({"size": {"height": 8, "width": 10}, "do_center_crop": False, "crop_size": 4}, Preprocessing((8, 10))),
        ({"size": {"shortest_edge": 28}, "crop_pct": 0.875}, Preprocessing((28, 28), 32)),
        ({"size": {"shortest_edge": 384}, "crop_pct": 1.0}, Preprocessing((384, 384))),
    ],
)
def test_settings(tree, settings):
    assert from_json(Path("x"), tree, Preprocessing((9, 9), 11)) == settings


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"do_resize": False}, "do_resize False is not supported"),
        ({"do_pad": True}, "do_pad True is not supported"),
        ({"rescale_factor": 1.0}, r"rescale_factor 1\.0 is not supported"),
        ({"size": "large"}, "size 'large' is not supported"),
        ({"size": {"shortest_edge": 7}, "crop_size": 8}, "with crop_size 8 is not supported"),
        ({"size": {"shortest_edge": 9, "longest_edge": 12}, "crop_size": 8}, "'longest_edge': 12} is not supported"),
        ({"resample": 9}, "resample 9 is not supported"),
        ({"image_mean": [0.5]}, r"image_mean \[0\.5\] is not supported"),
    ],
)
def test_unsupported_preprocessing_is_refused(tree, message):
    with pytest.raises(UserError, match=f"^x: .*{message}"):
        from_json(Path("x"), tree, Preprocessing())


def test_a_batch_equals_its_single_images():
    images, settings = noise((5, 20, 31, 3)), Preprocessing((12, 10), 15)
    wanted = [preprocess(Image.fromarray(x), settings) for x in images]
    np.testing.assert_array_equal(preprocess_all(images, settings), wanted)
    grey = preprocess_all(images[..., :1], settings)
    np.testing.assert_array_equal(grey, preprocess_all(np.repeat(images[..., :1], 3, 3), settings))
    assert preprocess_all(images[:0], settings).shape == (0, 12, 10, 3)
    with pytest.raises(UserError, match="uint8"):
        preprocess_all(images / 255, settings)
