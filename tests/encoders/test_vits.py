"""Features equal those of transformers, for small models of every architecture and images of several sizes."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from clustering_jax.encoders import load_encoder
from tests.fixtures.make_encoder_fixture import noise
from tests.paths import FIXTURES

STORED = np.load(FIXTURES / "encoder_outputs.npz")


@pytest.mark.parametrize("case", list(STORED))
def test_features_equal_transformers(case):
    pytest.importorskip("safetensors")
    name, _, shape = case.partition("/")
    height, width = map(int, shape.split("x"))
    encoder = load_encoder(FIXTURES / "encoders" / name)
    rows = jax.jit(encoder.features)(encoder.params, noise((3, height, width, 3)))
    assert np.std(STORED[case]) > 0.1
    np.testing.assert_allclose(rows, STORED[case], rtol=0, atol=1e-4)
