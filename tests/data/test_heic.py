"""HEIC photos are read if Pillow's plugin is installed, and are ignored in a folder otherwise."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from PIL import Image

from clustering_jax.data.images.decode import read_image
from clustering_jax.data.images.listing import EXTENSIONS


def test_a_photo_is_read(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    rows = np.linspace(0, 255, 64).astype(np.uint8)
    pixels = np.stack(np.broadcast_arrays(rows[:, None], rows[None], np.uint8(90)), -1)
    heif.from_pillow(Image.fromarray(pixels)).save(tmp_path / "photo.heic", quality=95)
    read = read_image(tmp_path / "photo.heic", np.asarray)
    assert isinstance(read, np.ndarray), read
    assert np.abs(read.astype(int) - pixels).mean() < 5
    assert ".heic" in EXTENSIONS


@pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is not None, reason="pillow_heif is installed")
def test_a_folder_ignores_heic_files_without_the_plugin():
    assert ".heic" not in EXTENSIONS
